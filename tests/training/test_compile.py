"""The same training on one and on eight simulated devices, and what cannot be divided."""

import json
import subprocess
import sys
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.models import build
from attn_unet_jax.models.ops import onednn_conv
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import mesh
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import (
  check_convolutions,
  check_patch,
  num_microbatches_on_one_device,
  pin_device_count,
  select_devices,
)
from attn_unet_jax.training.placement import _tabulate_samples
from attn_unet_jax.training.state import abstract_state, create_state
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.collectives import Collective
from tests import networks
from tests.configs import with_keys
from tests.conftest import HALF, QUICK, ROOT, host_devices
from tests.line import Line

PARAMETERS = 97_979  # of the network that is trained
RUNS = ("jit-1x1", "jit-8x1", "jit-4x2", "jit-1x8", "pmap-8x1")
HALOS_AND_SUMS = {"all-reduce", "collective-permute"}
PACKED = "jit-4x2-packed"
THREE = ("jit-1x1", "jit-4x2", "pmap-4x1")
LOCAL = ("jit-8x1-local", "pmap-8x1-local")  # batch statistics of each device's own patches


def _train(folder, *arguments, x64=True, compiled=HALF):
  """What tests/parallel_steps.py prints for runs like `jit-4x2`.

  In float32 compiled as for users, else rounding is so much worse that five steps leave the bounds.
  """
  done = subprocess.run(
    [sys.executable, "-W", "error", "-m", "tests.parallel_steps", str(folder), *arguments],
    cwd=ROOT,
    env={**host_devices(8, compiled if x64 else ""), "JAX_ENABLE_X64": str(int(x64))},
    capture_output=True,
    text=True,
    timeout=3000,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def _kinds(run):
  return {kind for kind, _, _ in run["collectives"]}


def _assert_same(told, names, loss=1e-9, params=1e-7, moved=5e-3):
  one = told[names[0]]
  assert np.abs(np.subtract(one["params"], told["start"])).max() > moved
  assert len(set(one["losses"])) == 5
  for name in names[1:]:
    np.testing.assert_allclose(told[name]["losses"], one["losses"], atol=loss, rtol=0)
    if params:
      np.testing.assert_allclose(told[name]["params"], one["params"], atol=params, rtol=0)
      np.testing.assert_allclose(told[name]["batch_stats"], one["batch_stats"], atol=params, rtol=0)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  """Float64, Adam, with augmentation: a batch of 8 patches of 128 x 16 x 16."""
  folder = tmp_path_factory.mktemp("divided")
  return _train(
    folder, "attention_unet", "float64", "adam", "8", "128", *RUNS, PACKED, *LOCAL
  ), folder


@pytest.mark.soak
def test_every_division_gives_what_one_device_gives(told):
  """Losses to 1e-9, parameters and statistics to 1e-7."""
  _assert_same(told[0], RUNS)
  assert [told[0][name]["devices"] for name in RUNS] == [[1, 1]] + [[8, 1]] * 4


@pytest.mark.soak
def test_a_divided_patch_with_packed_voxels_too(told):
  """As on a GPU: the voxels are packed along Z, the patch is divided along X."""
  _assert_same(told[0], ("jit-1x1", PACKED))
  assert _kinds(told[0][PACKED]) == HALOS_AND_SUMS


@pytest.mark.soak
def test_every_division_consumes_the_state_passed_in(told):
  assert all(told[0][name]["consumed"] for name in (*RUNS, *LOCAL))


@pytest.mark.soak
def test_batch_statistics_of_each_device_are_the_same_by_either_mode(told):
  _assert_same(told[0], LOCAL)
  losses = [told[0][name]["losses"] for name in ("jit-1x1", LOCAL[0])]
  assert np.abs(np.subtract(*losses)).max() > 1e-3


@pytest.mark.soak
def test_devices_exchange_sums_and_halos_only(told):
  """A patch's halo is one plane along X (the 4 x 2 mesh has two patches of 64 x 16 x 16 a place).

  Nothing is gathered, nothing is reordered; what is summed up are gradients and statistics.
  """
  exchanged = [Collective(*values) for values in told[0]["jit-4x2"]["collectives"]]
  assert {x.kind for x in exchanged} == HALOS_AND_SUMS
  halos = [shape for x in exchanged if x.kind == "collective-permute" for _, shape in x.arrays]
  assert max(shape[2] for shape in halos) == 16
  assert all(shape[:2] == [2, 1] and len(shape) == 5 for shape in halos)
  sums = [x for x in exchanged if x.kind == "all-reduce"]
  assert {x.group for x in sums} == {2, 4}
  # Over each axis: the gradients, and sums over the batch of at most three kinds per channel.
  assert len(told[0]["start"]) == PARAMETERS
  statistics = 3 * len(told[0]["jit-4x2"]["batch_stats"])
  assert 2 * PARAMETERS <= sum(x.elements for x in sums) <= 2 * (PARAMETERS + statistics)
  assert told[0]["jit-1x1"]["collectives"] == []
  assert _kinds(told[0]["jit-1x8"]) == HALOS_AND_SUMS


@pytest.mark.slow
def test_bytes_read_from_a_program_are_those_counted_by_hand(three):
  """V-Net on two devices: its gradients, 4 bytes a parameter, and two or three sums of the loss."""
  counted = three[0]["counted"]
  assert {(x["kind"], x["group"]) for x in counted["collectives"]} == {("all-reduce", 2)}
  told_bytes = sum(x["bytes"] for x in counted["collectives"])
  assert 0 < told_bytes - 4 * counted["parameters"] <= 3 * 8
  assert counted["patches_per_device"] == 1


@pytest.mark.soak
def test_a_device_augments_its_own_part_only(told):
  """Trilinear: eight neighbours of every voxel, of the batch or of half a patch."""
  assert told[0]["jit-1x1"]["gathered"] == [8 * 128 * 16 * 16] * 8
  assert told[0]["jit-4x2"]["gathered"] == [2 * 64 * 16 * 16] * 8


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  """Float64, Adam: a batch of 4 patches of 32 x 16 x 16; hardly optimised.

  3D U-Net has batch statistics and halos, and compiles in half the time of an Attention U-Net.
  """
  folder = tmp_path_factory.mktemp("three")
  kinds = ("unet3d", "float64", "adam", "4", "32")
  return _train(folder, *kinds, *THREE, compiled=QUICK), folder


@pytest.mark.slow
def test_three_divisions_give_what_one_device_gives(three):
  """The soak tests have all of them, Attention U-Net, float32, and gradient descent."""
  _assert_same(three[0], THREE)
  assert all(three[0][name]["consumed"] for name in THREE)
  assert _kinds(three[0]["jit-4x2"]) == HALOS_AND_SUMS


@pytest.mark.soak
@pytest.mark.parametrize(
  ("name", "size", "option"),
  [
    ("vnet", 96, ""),
    ("unet3d", 64, ""),
    ("dual_attention", 64, ""),
    ("attention_unet", 64, "-gates"),
  ],
)
def test_other_networks_are_divided_too(tmp_path, name, size, option):
  names = (f"jit-1x1{option}", f"jit-4x2{option}")
  told = _train(tmp_path, name, "float64", "adam", "4", str(size), *names)
  _assert_same(told, names)
  assert _kinds(told[names[1]]) == HALOS_AND_SUMS


@pytest.mark.soak
@pytest.mark.parametrize(
  ("optimizer", "loss", "params", "moved"), [("sgd", 1e-5, 1e-4, 5e-3), ("adam", 1e-4, 0, 4e-4)]
)
def test_every_division_in_float32(tmp_path, optimizer, loss, params, moved):
  """Adam turns the rounding of a gradient that is 0 into a full step: only its loss is compared."""
  told = _train(tmp_path, "attention_unet", "float32", optimizer, "8", "128", *RUNS, x64=False)
  _assert_same(told, RUNS, loss, params, moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", THREE[1:])
def test_a_state_of_many_devices_opens_on_one(config, three, name):
  result, folder = three
  config = with_keys(config, {"model.name": "unet3d", "model.padding": "SAME"})
  like = abstract_state(config, build_run_network(config, 2)).replace(opt_state=())
  with open_checkpoints(folder / name, 1) as store:
    state = store.restore(5, like)
  numbers = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
  np.testing.assert_array_equal(numbers, np.float32(result[name]["params"]))
  assert all(len(x.devices()) == 1 for x in jax.tree.leaves(state))
  assert int(state.step) == 5


@pytest.mark.slow
def test_what_does_not_fit_is_refused(three):
  said = three[0]["refusals"]
  assert "config.parallel.space=3: 9 devices, and there are 8 cpu" in said["absent"]
  assert "config.parallel.space=3: does not divide the 8 cpu devices" in said["left out"]
  assert "--config.parallel.data=2 for 6 of them" in said["left out"]
  assert "config.train.batch_size=12: cannot be divided over 8 devices" in said["odd"]
  assert "--config.parallel.data=6" in said["odd"]
  assert "config.loss.focal=1.0" in said["uneven"]
  assert "--config.parallel.mode=jit" in said["uneven"]


def test_the_devices_are_named_where_each_has_batch_statistics_of_its_own(config, monkeypatch):
  """Lest a run on all of them go on with others: it could not be told from one that does not."""
  monkeypatch.setattr(jax, "device_count", lambda: 8)
  config = with_keys(config, {"parallel.space": 2})
  for statistics, data in (("global", 0), ("local", 4)):
    pinned = pin_device_count(with_keys(config, {"parallel.batch_norm": statistics}))
    assert pinned.parallel.data == data


def test_every_part_of_a_batch_must_divide(config, monkeypatch):
  monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="cpu")] * 4)
  config = with_keys(config, {"train.batch_size": 8, "train.accumulate": 4, "parallel.data": 4})
  told = r"in 4 parts over 4 devices; make it a multiple of 16, or .* --config.parallel.data=2"
  with pytest.raises(UserError, match=told):
    select_devices(config)
  config = with_keys(config, {"train.batch_size": 16})
  assert len(select_devices(config)) == 4


def test_the_places_of_a_batch_that_is_fed_in_parts(config):
  """With `jit` parts of places, with `pmap` a device's parts; each device has neighbours."""
  config = with_keys(config, {"train.batch_size": 8, "train.accumulate": 2})
  assert _tabulate_samples(config, 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
  config = with_keys(config, {"parallel.mode": "pmap"})
  assert _tabulate_samples(config, 2).tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
  assert _tabulate_samples(config, 1).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    ({"parallel.space": 2}, 6),
    ({"parallel.mode": "pmap"}, 6),
    ({"parallel.data": 1, "train.accumulate": 1}, 1),
    ({"loss.focal": 1.0, "train.accumulate": 1}, 1),
  ],
)
def test_one_device_takes_the_parts_that_devices_divide_a_batch_into(config, changes, parts):
  """But all of it for a loss that is not the mean of its parts'."""
  config = with_keys(config, {"parallel.data": 3, "train.accumulate": 2})
  config = with_keys(config, changes)
  assert num_microbatches_on_one_device(config) == parts


@pytest.mark.parametrize(
  ("name", "size", "space", "told"),
  [
    ("attention_unet", 160, 2, None),
    ("attention_unet", 144, 2, "a multiple of 32 and at least 48; the nearest is 128"),
    ("attention_unet", 32, 2, "at least 48; the nearest is 64"),
    ("vnet", 64, 2, "at least 80; the nearest is 96"),
    ("vnet", 80, 1, None),
    ("unet3d", 32, 2, None),
  ],
)
def test_a_patch_is_divided_where_every_level_is(config, name, size, space, told):
  config = with_keys(config, {"data.patch": (size, 16, 16), "parallel.space": space})
  padding = {"padding": "SAME"} if name == "unet3d" else {}  # the others always pad
  module = networks.build(name, **padding)
  if told is None:
    check_patch(config, module)
  else:
    with pytest.raises(UserError, match=told):
      check_patch(config, module)


@pytest.mark.parametrize("name", ["hnn", "dense_vnet"])
def test_a_network_that_does_not_divide_its_patches_says_so(config, name):
  module = networks.build(name)
  check_patch(config, module)
  config = with_keys(config, {"parallel.space": 2})
  with pytest.raises(UserError, match=r"space=2: \w+ does not divide its patches"):
    check_patch(config, module)


def test_onednn_is_for_one_cpu_device_and_needs_its_package(monkeypatch):
  module, cpu, gpu = SimpleNamespace(conv="onednn"), *map(_device, ("cpu", "gpu"))
  with monkeypatch.context() as patch:
    patch.setattr(mesh, "require_onednn", lambda: None)
    check_convolutions(module, [cpu])
    check_convolutions(module, [gpu, gpu])
    with pytest.raises(UserError, match=r"onednn': is not divided over 2 CPU .*parallel\.data=1"):
      check_convolutions(module, [cpu, cpu])
  monkeypatch.setattr(onednn_conv, "find_onednn", lambda: ImportError("no such file"))
  check_convolutions(SimpleNamespace(conv="auto"), [cpu, cpu])
  with pytest.raises(UserError, match=r"needs attn_unet_jax_onednn.*no such file.*install-native"):
    check_convolutions(module, [cpu])


def _device(platform):
  return SimpleNamespace(platform=platform)


def test_an_unpadded_network_is_not_divided(config):
  config = with_keys(config, {"data.patch": (132, 132, 132), "parallel.space": 2})
  with pytest.raises(UserError, match=r"--config.model.padding=SAME"):
    check_patch(config, networks.build("unet3d", padding="VALID"))


@pytest.mark.parametrize(
  "name", ["attention_unet", "dense_vnet", "dual_attention", "unet", "unet3d"]
)
def test_every_batch_norm_of_a_network_knows_the_axis(name):
  module = networks.build(name).clone(batch_axis="data")
  axes = []

  def note(call, arguments, keywords, context):
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
      axes.append(context.module.axis_name)
    return call(*arguments, **keywords)

  image = np.zeros((1, *build.nearest_patch(module, (1, 1, 1)), 1), np.float32)
  with nn.intercept_methods(note):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
  assert axes == ["data"] * (len(jax.tree.leaves(shapes["batch_stats"])) // 2)


def test_the_state_passed_in_is_consumed(config):
  """Its buffers become those of the result: the program needs no second copy of the state."""
  module = Line(batch_norm=True)
  config = with_keys(config, {"optimizer.ema_decay": 0.9})
  image = np.zeros((16, 17, 18), np.int16)
  data = make_resident(
    [WorkingCase("a", image, image.astype(np.uint8), 0.0, 1.0)], config.data.patch
  )
  state, step = create_state(config, module), compile_step(config, module)
  leaves = jax.tree.leaves(state)
  compiled = step.lower(state, data).compile()
  shared = compiled.memory_analysis().alias_size_in_bytes
  assert shared == sum(leaf.nbytes for leaf in leaves)
  step(state, data)
  assert all(leaf.is_deleted() for leaf in leaves)
  assert not data.image.is_deleted()


IN_PARTS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import replicate
from attn_unet_jax.training.state import create_state
from tests.configs import small_config, with_keys
from tests.line import Line
module = Line(batch_norm=True, dtype=jnp.float64)
keys = {"train.batch_size": 16, "train.accumulate": 2, "data.patch": (4, 4, 4)}
image = np.random.default_rng(0).integers(-200, 300, (9, 8, 7)).astype(np.int16)
case = WorkingCase("a", image, (image > 100).astype(np.uint8), 0.0, 1.0)
data = make_resident([case], (4, 4, 4))
told = []
for name in sys.argv[1:]:
  mode, count, statistics = name.split("-")
  config = small_config(**keys, **{"parallel.mode": mode, "parallel.data": int(count)})
  config = with_keys(config, {"parallel.batch_norm": statistics})
  step = compile_step(config, module)
  state, set_ = replicate(config, (create_state(config, module), data))
  for _ in range(2):
    state, outcome = step(state, set_)
  numbers = jax.tree.leaves((state.params, state.batch_stats, outcome))
  told.append([float(np.ravel(x)[0]) for x in numbers])
print(json.dumps(told))
"""


def _train_in_parts(*names):
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", IN_PARTS, *names],
    cwd=ROOT,
    env={**host_devices(4), "JAX_ENABLE_X64": "1"},
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_the_parts_of_a_batch_are_divided_over_devices_alike():
  """Two parts over four devices: parameters, statistics, loss and gradient norm of one device's."""
  one, *several = _train_in_parts("jit-1-global", "jit-4-global", "pmap-4-global")
  for other in several:
    np.testing.assert_allclose(other, one, rtol=1e-5)


@pytest.mark.slow
def test_parts_with_each_devices_own_statistics_are_the_same_in_either_mode():
  one, by_jit, by_pmap = _train_in_parts("jit-1-global", "jit-4-local", "pmap-4-local")
  np.testing.assert_allclose(by_pmap, by_jit, rtol=1e-5)
  assert np.abs(np.subtract(by_jit, one)).max() > 1e-4
