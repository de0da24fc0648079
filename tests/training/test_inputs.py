"""Training from either source, with the smallest network: the same patches, the same states."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from attn_unet_jax.cases.boxes import to_json
from attn_unet_jax.cases.dataset import open_dataset
from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.labels import UNLABELLED, is_foreground
from attn_unet_jax.patches.batch import crop_fixed_batches, make_training_batch
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted
from attn_unet_jax.training import inputs, loop
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.epoch_end import EpochReport, ValidationScore
from attn_unet_jax.training.loop import train_network
from attn_unet_jax.training.state import create_state
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys
from tests.conftest import ROOT, assert_same, host_devices
from tests.line import Line

pytestmark = pytest.mark.usefixtures("shared_steps")


@pytest.fixture
def config(config, phantoms):
  return with_keys(
    config,
    {
      "data.dir": str(phantoms),
      "data.cases_per_block": 2,
      "data.patches_per_case": 3,
      "augment.flip": (0.5, 0.5, 0.5),
      "augment.histogram_probability": 0.5,
      "train.validate_every": 2,
    },
  )


def _train(config, workdir, source="streaming"):
  config = with_keys(config, {"data.source": source})
  workdir.mkdir(exist_ok=True)
  with open_checkpoints(workdir / "checkpoints", 2) as store:
    load = open_fold(config.data).load
    return train_network(
      config, Line(batch_norm=True), load, lambda _: ValidationScore(0.5, 1, 1), store, workdir
    )


def test_both_sources_train_the_same_network_under_the_transfer_guard(config, tmp_path, capsys):
  """Also where a batch is taken in parts."""
  config = with_keys(config, {"train.accumulate": 2})
  states = [_train(config, tmp_path / source, source) for source in ("resident", "streaming")]
  for x, y in zip(*map(jax.tree.leaves, states), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
  assert int(states[1].step) == 6
  said = capsys.readouterr().out
  assert "source of patches: resident, as configured" in said
  assert "source of patches: streaming, as configured" in said
  tables = [(tmp_path / s / "metrics.csv").read_text() for s in ("resident", "streaming")]
  columns = [[line.split(",")[1:4] for line in table.splitlines()] for table in tables]
  assert columns[0][0] == columns[1][0]
  np.testing.assert_allclose(
    *[np.array(rows[1:], float) for rows in columns], rtol=1e-4
  )  # losses on fixed patches
  kept = {path.name.split(".")[0] for path in (tmp_path / "streaming" / "prepared").iterdir()}
  assert set(open_fold(config.data).split.training) <= kept
  assert not (tmp_path / "resident" / "prepared").exists()


def test_a_streamed_run_that_is_stopped_goes_on_to_the_same_bits(config, tmp_path, monkeypatch):
  """Stopped within an epoch, while batches for later steps lie ready."""
  whole = _train(config, tmp_path / "whole")
  real = loop.compile_step

  def stopping(*arguments, **keywords):
    step = real(*arguments, **keywords)

    def signalling(state, feed):
      if int(jax.device_get(feed.step)) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
      return step(state, feed)

    return signalling

  monkeypatch.setattr(loop, "compile_step", stopping)
  with pytest.raises(Interrupted):
    _train(config, tmp_path / "stopped")
  monkeypatch.undo()
  assert_same(_train(config, tmp_path / "stopped"), whole)


def test_a_broken_step_leaves_the_state_before_it_though_other_steps_are_fed(config, tmp_path):
  config = with_keys(config, {"optimizer.learning_rate": 1e38})
  with pytest.raises(UserError, match=r"^step 2: the loss is (nan|inf)"):
    _train(config, tmp_path)
  with ocp.StandardCheckpointer() as checkpointer:
    state = checkpointer.restore((tmp_path / "nonfinite" / "state").absolute())
  assert int(state["step"]) == 1
  assert np.isfinite(state["params"]["kernel"]).all()


def test_what_crosses_implicitly_is_refused(config, tmp_path, monkeypatch):
  """Blocks that nobody put onto the device."""
  real = inputs.plan_placement

  def forgetful(config):
    rows, put = real(config)
    return rows, lambda step, blocks: jax.device_get(put(step, blocks))

  monkeypatch.setattr(inputs, "plan_placement", forgetful)
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    _train(config, tmp_path)


@pytest.mark.slow
def test_where_a_patch_came_from_is_told_in_the_whole_scan(config, tmp_path):
  """Though it is cut inside a box, and a scan that is smaller than the patch is padded."""
  config = with_keys(
    config,
    {
      "augment.flip": (0.0, 0.0, 0.0),
      "augment.histogram_probability": 0.0,
      "data.foreground_fraction": 1.0,
      "train.batch_size": 4,
      "data.patch": (6, 8, 50),
    },
  )
  whole = {case.id: case for case in open_fold(config.data).load("training")}
  assert all(case.label.shape[2] < 50 for case in whole.values())
  box = Box((-60.0, -50.0, -30.0), (70.0, 90.0, 20.0))
  config = with_keys(
    config, {"data.boxes": str(tmp_path / "boxes.json"), "data.source": "resident"}
  )
  (tmp_path / "boxes.json").write_text(to_json(dict.fromkeys(open_dataset(config.data).ids, box)))
  read = inputs.open_inputs(config, Line(), open_fold(config.data).load, tmp_path)
  with read.source.feeds(range(2, 3)) as feeds:
    batch = make_training_batch(config, next(feeds), 2)
  places = read.locate_patches(3)
  assert len({corner[:2] for _, corner in places}) > 1
  for (case, corner), label in zip(places, batch.label, strict=True):
    assert corner[2] == -((50 - whole[case].label.shape[2] + 1) // 2)
    x, y, _ = (slice(c, c + n) for c, n in zip(corner, config.data.patch, strict=True))
    margin = [(0, 0), (0, 0), (-corner[2], 50)]
    padded = np.pad(whole[case].label[x, y], margin, constant_values=UNLABELLED)
    expected = padded[:, :, :50]
    np.testing.assert_array_equal(label, expected)
    assert is_foreground(expected).any()


@pytest.mark.slow
def test_a_network_trains_on_soft_labels_from_either_source(config, tmp_path):
  soft = {"data.label_resampling": "occupancy", "data.spacing_mm": 13.0, "train.epochs": 1}
  config = with_keys(config, {**soft, "train.validate_every": 1})
  states = [_train(config, tmp_path / source, source) for source in ("resident", "streaming")]
  for x, y in zip(*map(jax.tree.leaves, states), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("source", ["resident", "streaming"])
def test_labels_of_nothing_are_not_trained_on(config, tmp_path, source):
  """A mapping that makes all values background, or all of a class unknown."""
  config = with_keys(config, {"data.source": source})
  for labels in ("pancreas=77,background=*", "pancreas=77,background=0,unlabelled=1+2+3+4+5+6+7"):
    changed = with_keys(config, {"data.labels": labels})
    with pytest.raises(UserError, match=r"none of the \d training cases has a voxel of it"):
      inputs.open_inputs(changed, Line(), open_fold(changed.data).load, tmp_path / labels)


def test_one_case_with_the_organ_is_enough(config):
  """As many are read as it takes to find one, and none where a patch shows the organ."""
  read = []

  def cases(*counts):
    for count in counts:
      read.append(count)
      yield SimpleNamespace(centres=range(count))

  inputs._require_foreground(config, [], cases(0, 3, 0))
  assert read == [0, 3]
  patch = SimpleNamespace(label=np.full((2, 2, 2), UNLABELLED, np.uint8))
  inputs._require_foreground(config, [patch], cases(1))
  patch.label[0, 0, 0] = 1
  inputs._require_foreground(config, [patch], cases(7))
  assert read == [0, 3, 1]


def test_losses_are_measured_on_as_many_patches_at_a_time_as_a_device_trains_on(config, tmp_path):
  """A batch of 8 in 4 parts: the same patches two by two, and the same loss."""
  config = with_keys(config, {"train.batch_size": 8})
  batches, rows = {}, {}
  for count in (1, 4):
    config = with_keys(config, {"train.accumulate": count})
    fixed = inputs.open_inputs(config, Line(), open_fold(config.data).load, tmp_path).fixed
    state = create_state(config, Line())
    batches[count] = fixed["validation"]
    rows[count] = EpochReport(config, Line(), fixed, None).measure_epoch(1, state, 0, 1)
  assert [batch.image.shape[0] for batch in batches[1]] == [8]
  assert [batch.image.shape[0] for batch in batches[4]] == [2, 2, 2, 2]
  for whole, *parts in zip(*batches[1], *batches[4], strict=True):
    np.testing.assert_array_equal(np.concatenate(parts), whole)
  for part in inputs.PARTS:
    own = crop_fixed_batches(config, open_fold(config.data).load(part), parts=4)
    assert_same(fixed[part], own)
  for name in ("train_seg_loss", "validation_seg_loss", "test_seg_loss"):
    assert rows[4][name] == pytest.approx(rows[1][name], rel=1e-6)


@pytest.mark.parametrize("source", ["resident", "streaming"])
def test_the_training_loss_is_of_both_data_sets_by_their_share(config, tmp_path, source):
  """Of the second set, one scan that is pancreas all over, and of no other part."""
  image = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 16)).astype(np.int16)
  for folder, array in (("imagesTr", image), ("labelsTr", np.ones_like(image))):
    volume = Volume(array, np.diag([10.0, 10.0, 10.0, 1.0]))
    write_nifti(tmp_path / "also" / folder / "x.nii.gz", volume)
  keys = {"data.also": str(tmp_path / "also"), "data.also_labels": "pancreas=1"}
  keys |= {"data.also_share": 0.25, "data.source": source}
  config = with_keys(config, {**keys, "train.batch_size": 8, "train.loss_patches": 8})
  fold = open_fold(config.data)
  fixed = inputs.open_inputs(config, Line(), fold.load, tmp_path).fixed
  filled = [(np.asarray(b.label) == 1).all((1, 2, 3)).sum() for b in fixed["training"]]
  assert filled == [2]
  for part in ("validation", "test"):
    assert_same(fixed[part], crop_fixed_batches(config, fold.load(part)))


@pytest.mark.slow
def test_a_named_folder_of_prepared_scans_serves_every_run_and_source(
  config, tmp_path, monkeypatch
):
  config = with_keys(config, {"data.prepared": str(tmp_path / "scans")})
  left = tmp_path / "scans" / ".case.x.part"
  left.parent.mkdir()
  left.write_text("")
  os.utime(left, (0, 0))
  first = _train(config, tmp_path / "a", "resident")
  assert not left.exists()  # what a kill left there long ago
  names = sorted(path.name for path in (tmp_path / "scans").iterdir())

  def no(*_):
    raise AssertionError("prepared again")

  monkeypatch.setattr("attn_unet_jax.cases.working_cases.prepare_case", no)
  second = _train(config, tmp_path / "b", "resident")
  assert_same(first, second)
  _train(config, tmp_path / "c", "streaming")
  assert sorted(path.name for path in (tmp_path / "scans").iterdir()) == names


@pytest.mark.slow
def test_devices_that_are_fed_their_own_patches_train_the_same_network(phantoms, tmp_path):
  """Streaming over four devices, with a batch in two parts, against the resident set on one."""
  one = "resident-jit-1x1"
  fed = ["streaming-jit-2x2", "streaming-pmap-4x1"]
  done = subprocess.run(
    [sys.executable, "-m", "tests.fed_steps", phantoms, tmp_path, one, *fed],
    cwd=ROOT,
    env={**host_devices(4), "JAX_ENABLE_X64": "1"},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  assert told[one]["params"] != [0.5, 0.0]
  for name in fed:
    assert told[name]["devices"] == 4
    np.testing.assert_allclose(told[name]["params"], told[one]["params"], rtol=0, atol=1e-9)
