"""Classes matched by name along every axis that counts them; what does not fit is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.models.unet import DeepSupervision
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.weights import from_run
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.starting_run import open_starting_run
from tests.configs import small_config, with_keys
from tests.conftest import assert_same


def test_axes_that_count_classes():
  config = small_config()
  blocks = from_run.class_blocks(config, config.model, 3)
  head = "params/deep_supervision"
  counted = {name: axes for name, axes in blocks.items() if axes}
  assert counted == {
    f"{head}/kernel": {0: 4, 1: 1},
    f"{head}/bias": {0: 1},
    **{f"{head}/level{i}/kernel": {4: 1} for i in (1, 2, 3, 4)},
    **{f"{head}/level{i}/bias": {0: 1} for i in (1, 2, 3, 4)},
  }


def test_a_network_of_one_organ_has_no_such_axes():
  config = small_config(**{"model.name": "hnn"})
  blocks = from_run.class_blocks(config, config.model, 2)
  assert "params/axial/fuse/bias" in blocks
  assert not any(blocks.values())


def test_classes_are_matched_by_name():
  """Two blocks of (background, a, b) become two of (background, b, new)."""
  old = np.arange(18).reshape(6, 3)
  fresh = -np.ones((6, 3))
  ours, theirs = ("background", "b", "new"), ("background", "a", "b")
  expected = [[0, 2, -1], [6, 8, -1], [-1] * 3, [9, 11, -1], [15, 17, -1], [-1] * 3]
  np.testing.assert_array_equal(
    from_run.copy_common_classes(fresh, old, {0: 2, 1: 1}, ours, theirs), expected
  )
  np.testing.assert_array_equal(from_run.copy_common_classes(fresh, old, {}, ours, theirs), old)


def test_a_head_in_another_order_gives_the_same_logits_in_that_order():
  rng = np.random.default_rng(0)
  levels = [jnp.asarray(rng.normal(size=(1, s, s, s, 8 // s)), jnp.float32) for s in (8, 4, 2, 1)]
  head = DeepSupervision(3)
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), levels))
  theirs = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)["params"]
  blocks = {"kernel": {0: 4, 1: 1}, "bias": {0: 1}}

  def turned(path, old):
    name = path[-1].key
    axes = blocks[name] if len(path) == 1 else {old.ndim - 1: 1}
    names = ("background", "b", "a"), ("background", "a", "b")
    return from_run.copy_common_classes(np.zeros_like(old), old, axes, *names)

  ours = jax.tree_util.tree_map_with_path(turned, theirs)
  answer = jax.jit(lambda params: head.apply({"params": params}, levels))
  expected = np.asarray(answer(theirs))[..., (0, 2, 1)]
  np.testing.assert_allclose(answer(ours), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A run of two organs whose parameters are drawn with NumPy."""
  config = small_config(**{"data.labels": "liver,spleen", "model.name": "vnet"})
  workdir = tmp_path_factory.mktemp("source")
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype),
    abstract_state(config, build_run_network(config, 3)),
  ).replace(step=jnp.array(7, jnp.int32))
  open_run_folder(workdir, config)
  with open_checkpoints(workdir / "checkpoints", 1) as store:
    store.save(state, validation_dsc=0.5)
  return workdir, state, config


@pytest.fixture(scope="module")
def later(source):
  """Two steps more of that run, of which the first is its best."""
  workdir, state, _ = source
  added = [
    jax.tree.map(lambda a, k=k: jnp.asarray(np.asarray(a) + k, a.dtype), state) for k in (1, 4)
  ]
  with open_checkpoints(workdir / "checkpoints", 9) as store:
    for step, more in zip((8, 9), added, strict=True):
      store.save(more.replace(step=jnp.array(step, jnp.int32)), validation_dsc=0.1)
  return [state, *added]


def _starting(source, **keys):
  return with_keys(source[2], {"init.workdir": str(source[0]), **keys})


def test_the_state_that_a_run_starts_from(source, monkeypatch):
  """Of two classes one stays, in another place, and one is new; no optimiser is taken over."""
  config = _starting(source, **{"data.labels": "kidney,liver"})
  module = build_run_network(config, 3)
  zeros = jax.tree.map(
    lambda a: jnp.asarray(np.zeros(a.shape, a.dtype)), abstract_state(config, module)
  )
  monkeypatch.setattr(from_run, "create_state", lambda *_: zeros)
  origin = open_starting_run(config, module)
  state = origin.make_state(config, config.model, module)
  theirs = source[1].params
  same = {name: tree for name, tree in theirs.items() if name != "head"}
  jax.tree.map(
    np.testing.assert_array_equal, {n: t for n, t in state.params.items() if n != "head"}, same
  )
  old, new = theirs["head"]["bias"], state.params["head"]["bias"]
  np.testing.assert_array_equal(new, [old[0], 0, old[1]])
  jax.tree.map(np.testing.assert_array_equal, state.opt_state, zeros.opt_state)
  assert state.step == 0
  assert origin.make_record() == {
    "workdir": str(source[0]),
    "checkpoint_step": 7,
    "classes_taken": ["background", "liver"],
    "classes_fresh": ["kidney"],
  }
  assert "step 7" in str(origin)


def test_the_mean_of_several_checkpoints(source, later):
  """The best of the run, of step 7, and two others: of each array the mean."""
  workdir = source[0]
  config = _starting(source, **{"init.workdir": f"{workdir}, {workdir}@8,{workdir}@9"})
  module = build_run_network(config, 3)
  origin = open_starting_run(config, module)
  state = origin.make_state(config, config.model, module)
  for name in ("params", "batch_stats"):
    jax.tree.map(
      lambda mean, *each: np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-6),
      getattr(state, name),
      *(getattr(one, name) for one in later),
    )
  record = origin.make_record()
  assert [one["checkpoint_step"] for one in record["mean_of"]] == [7, 8, 9]
  assert {one["workdir"] for one in record["mean_of"]} == {str(workdir)}
  assert str(origin).startswith(f"the mean of step 7 of {workdir}, step 8 of {workdir}, step 9 of")


def test_one_checkpoint_that_is_not_the_best(source, later):
  config = _starting(source, **{"init.workdir": f"{source[0]}@9"})
  module = build_run_network(config, 3)
  origin = open_starting_run(config, module)
  assert_same(origin.make_state(config, config.model, module).params, later[2].params)
  assert origin.make_record()["checkpoint_step"] == 9


def test_the_mean_of_equal_arrays_is_that_array_to_the_bit():
  tree = {"a": np.random.default_rng(0).normal(size=50).astype(np.float32)}
  mean = from_run.average_arrays([tree] * 3)["a"]
  np.testing.assert_array_equal(mean, tree["a"])
  assert mean.dtype == np.float32


def test_a_mean_of_runs_of_other_classes_is_refused(source):
  config, module = source[2], build_run_network(source[2], 3)
  first = from_run.OtherRun(source[0], ("liver", "spleen"), source[1].variables, 7)
  turned = dataclasses.replace(first, classes=("spleen", "liver"))
  with pytest.raises(
    UserError, match=r"has the classes spleen, liver, and .* has liver, spleen; a m"
  ):
    from_run.check_starting_run(config, config.model, module, [first, turned])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model.feature_scale": 8.0}, r"params/down2/bias, \(1,\) there, \(4,\) here"),
    ({"model.name": "unet"}, "params/bottleneck/.*, missing there"),
    ({"init.workdir": "nowhere"}, "nowhere/config.json: not found"),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(source, changes, words):
  config = _starting(source, **changes)
  with pytest.raises(UserError, match=words) as error:
    open_starting_run(config, build_run_network(config, 3))
  assert "\n" not in str(error.value)


def test_nothing_is_opened_where_a_run_starts_afresh(config):
  assert open_starting_run(config, build_run_network(config, 2)) is None
