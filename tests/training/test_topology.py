"""The step compiled for GPUs and TPUs that are not here; `make test-targets` has what it needs."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import topology
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.collectives import collectives
from tests.configs import small_config
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["b200", "h100:0", "h100:8x", "h100:1x1x1x8", "v5e:", ""])
def test_what_names_no_device_is_refused(name):
  with pytest.raises(UserError, match=r"a100-40, a100, h100, h200, v5e, v5p, v6e"):
    topology.describe_devices(name)


@pytest.mark.parametrize(
  ("name", "axes"), [("v5e:8", "2 axes, as v5e:4x4"), ("v5p:2x2", "3 axes, as v5p:2x2x2")]
)
def test_a_slice_is_given_along_each_of_its_axes(name, axes):
  with pytest.raises(UserError, match=f"^--target={name}: a slice of v5[ep] has {axes}$"):
    topology.describe_devices(name)


@pytest.mark.parametrize(
  ("name", "plugin", "extra"), [("h100", "jax_plugins", "cuda"), ("v5e:2x2", "libtpu", "tpu")]
)
def test_a_missing_plugin_is_named(name, plugin, extra):
  if importlib.util.find_spec(plugin):
    pytest.skip(f"{plugin} is installed")
  with pytest.raises(UserError, match=rf"pip install '\.\[{extra}\]'"):
    topology.describe_devices(name)


def _compiled(name, **keys):
  """The small network's step for a target; its batch a patch a device of the axis `data`."""
  config = small_config(**{"model.dtype": "bfloat16", **keys})
  module, there = build_run_network(config, 2), topology.describe_devices(name)
  data = topology.describe_training_set(config, module, (40, 30, 20), scans=3)
  return topology.compile_for_devices(config, module, data, there)


def test_the_training_set_has_the_shapes_of_a_real_one():
  config = small_config(**{"augment.histogram_probability": 0.5})
  data = topology.describe_training_set(config, build_run_network(config, 2), (40, 30, 10), scans=3)
  assert (data.image.shape, data.image.dtype) == ((3, 40, 30, 16), "int16")  # padded to the patch
  assert (data.label.shape, data.label.dtype) == ((3, 40, 30, 16), "uint8")
  assert {x.shape[0] for x in jax.tree.leaves(data)} == {3}
  assert data.quantiles is not None


def test_pmap_is_refused():
  config = small_config(**{"parallel.mode": "pmap"})
  module = build_run_network(config, 2)
  data = topology.describe_training_set(config, module, (16, 16, 16), scans=1)
  with pytest.raises(UserError, match=r"parallel\.mode=jit"):
    topology.compile_for_devices(config, module, data, jax.devices())


@pytest.fixture(scope="module")
def single():
  return _compiled("h100")


@pytest.mark.targets
def test_a_gpu_computes_convolutions_in_bfloat16_by_cudnn(single):
  text = single.as_text()
  calls = re.findall(r"= \((\w+)\[.*custom_call_target=\"__cudnn\$conv(\w+)\"", text)
  # 18 of 3x3x3 forward; each with its two gradients, but the image's own.
  assert len([kind for _, kind in calls]) >= 18 * 3 - 1
  assert {kind for kind, _ in calls} == {"bf16"}


@pytest.mark.targets
def test_the_state_is_updated_in_place(single):
  held = single.memory_analysis()
  assert 0.99 < held.alias_size_in_bytes / held.output_size_in_bytes < 1


@pytest.mark.targets
@pytest.mark.parametrize("name", ["h100:8", "v5e:2x4"])
def test_devices_exchange_halos_and_sums_and_nothing_else(name):
  """Patches over four, each patch's X over two: no activation is gathered."""
  keys = {"train.batch_size": 4, "data.patch": (64, 16, 16)}
  program = _compiled(name, **keys, **{"parallel.data": 4, "parallel.space": 2})
  found = collectives(program.as_text(), 8)
  assert {x.kind for x in found} == {"all-reduce", "collective-permute"}
  summed = [x for x in found if x.kind == "all-reduce"]
  assert {x.group for x in summed} <= {2, 4, 8}
  # Gradients over the batch too, though each device's are computed in bfloat16.
  assert {kind for x in summed for kind, _ in x.arrays if x.group > 2} == {"f32"}


def _told(target, patch):
  """What the command says of a target, where nothing else tells JAX that there is only a CPU."""
  flags = [f"--target={target}", "--config.model.feature_scale=32", f"--config.data.patch={patch}"]
  done = subprocess.run(
    [sys.executable, "-m", "attn_unet_jax.info", "--config=tests/small.py", *flags],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": ""},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)["target"]


@pytest.mark.targets
def test_info_says_what_a_target_holds():
  told = _told("h100", (16, 16, 16))
  assert told["device"] == "NVIDIA H100 80GB HBM3"
  assert told["mesh"] == [1, 1]
  assert 0 < told["temporary_bytes"] < told["memory_bytes"] < 2**32
  assert told["fits"] is True


@pytest.mark.targets
def test_a_step_that_does_not_fit_a_tpu_is_told():
  told = _told("v5e", (512, 512, 512))
  assert told["fits"] is False
  assert "memory" in told["reason"]
