"""The same training on one and on four simulated devices, and what cannot be divided."""

import json
import os
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from attn_unet_jax import models
from attn_unet_jax.data.prepare import WorkingCase
from attn_unet_jax.data.resident import resident
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.parallel import compile_step
from attn_unet_jax.training.state import abstract, create, network
from tests.conftest import ROOT
from tests.line import Line


def _train(folder, *names):
  """What tests/parallel_steps.py prints for runs like `jit4`: mode, and number of devices."""
  flags = "--xla_force_host_platform_device_count=4"
  done = subprocess.run(
    [sys.executable, "-W", "error", "-m", "tests.parallel_steps", str(folder), *names],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def _assert_same(told, names):
  one = told["jit1"]
  assert np.abs(np.subtract(one["params"], told["start"])).max() > 1e-2  # Adam moved them
  assert len(set(one["losses"])) == 3
  for name in names:
    np.testing.assert_allclose(told[name]["losses"], one["losses"], atol=1e-9, rtol=0)
    np.testing.assert_allclose(told[name]["params"], one["params"], atol=1e-7, rtol=0)
    np.testing.assert_allclose(told[name]["batch_stats"], one["batch_stats"], atol=1e-7, rtol=0)
    assert told[name]["devices"] == [int(name[-1]), 1]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  folder = tmp_path_factory.mktemp("divided")
  return _train(folder, "jit1", "jit4", "pmap2"), folder


def test_devices_give_what_one_gives(told):
  """Float64, Adam, with augmentation: losses to 1e-9, parameters and statistics to 1e-7."""
  _assert_same(told[0], ("jit4", "pmap2"))


@pytest.mark.slow
def test_other_numbers_of_devices_give_what_one_gives(tmp_path):
  _assert_same(_train(tmp_path, "jit1", "jit2", "pmap4"), ("jit2", "pmap4"))


def test_devices_exchange_sums_only(told):
  """Each cuts its own patches: nothing that belongs to a patch goes from one to another."""
  assert told[0]["jit1"]["exchanges"] == []
  assert told[0]["jit4"]["exchanges"] == ["all-reduce"]


@pytest.mark.parametrize("name", ["jit4", "pmap2"])
def test_a_state_of_many_devices_opens_on_one(config, told, name):
  result, folder = told
  config.model.gates = 1
  like = abstract(config, network(config, 2)).replace(opt_state=())
  with checkpoints(folder / name, 1) as store:
    state = store.restore(3, like)
  numbers = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
  np.testing.assert_array_equal(numbers, np.float32(result[name]["params"]))
  assert all(len(x.devices()) == 1 for x in jax.tree.leaves(state))
  assert int(state.step) == 3


def test_what_does_not_fit_is_refused(told):
  said = told[0]["refusals"]
  assert "config.parallel.data=5: this host has 4 cpu" in said["absent"]
  assert "config.train.batch_size=6: cannot be divided over 4 devices" in said["odd"]
  assert "--config.parallel.data=3" in said["odd"]
  assert "config.loss.focal=1.0" in said["uneven"]
  assert "--config.parallel.mode=jit" in said["uneven"]


@pytest.mark.parametrize("name", ["attention_unet", "unet", "unet3d"])
def test_every_batch_norm_of_a_network_knows_the_axis(name):
  module = models.build(name).clone(batch_axis="data")
  axes = []

  def note(call, arguments, keywords, context):
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
      axes.append(context.module.axis_name)
    return call(*arguments, **keywords)

  image = np.zeros((1, *models.nearest_patch(module, (1, 1, 1)), 1), np.float32)
  with nn.intercept_methods(note):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
  assert axes == ["data"] * (len(jax.tree.leaves(shapes["batch_stats"])) // 2)


def test_the_state_passed_in_is_consumed(config):
  """Its buffers become those of the result: the program needs no second copy of the state."""
  module = Line(batch_norm=True)
  config.optimizer.ema_decay = 0.9
  image = np.zeros((16, 17, 18), np.int16)
  data = resident([WorkingCase("a", image, image.astype(np.uint8), 0.0, 1.0)], config.data.patch)
  state, step = create(config, module), compile_step(config, module)
  leaves = jax.tree.leaves(state)
  compiled = step.lower(state, data).compile()
  shared = compiled.memory_analysis().alias_size_in_bytes
  assert shared == sum(leaf.nbytes for leaf in leaves)
  step(state, data)
  assert all(leaf.is_deleted() for leaf in leaves)
  assert not data.image.is_deleted()
