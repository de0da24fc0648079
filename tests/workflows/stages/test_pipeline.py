"""The order of the stages, with networks that give away what they were trained on."""

import dataclasses
import json

import numpy as np
import pytest

from attn_unet_jax.cases import boxes as box_files
from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.config.schema import flatten
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages import table
from attn_unet_jax.stages.cases import label_box, make_volume
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.workflows import open_run
from attn_unet_jax.workflows.load_run import LoadedRun, load_best
from attn_unet_jax.workflows.open_run import open_run_or_stages
from attn_unet_jax.workflows.run_data import RunData
from attn_unet_jax.workflows.stages import chain, pipeline
from attn_unet_jax.workflows.stages.chain import BOUNDARY, FIRST, INTERIOR, second_config
from attn_unet_jax.workflows.stages.pipeline import train_stages
from tests.configs import with_keys


class Stages:
  """Stands in for training: remembers what each run was given, and answers for it.

  Its networks know the label of every case. In a case that they were trained on they are certain
  (1.0), in others they are not (0.9): an answer tells whether its scan had been seen.
  """

  def __init__(self, fold):
    ids = fold.dataset.ids
    cases = WorkingCases(ids, fold.dataset, fold.mapping, fold.data)
    self.cases = {case.id: case for case in cases}
    self.given, self.asked, self.fail_at = {}, [], None

  def fit(self, config, fold, workdir, *, test):
    if workdir == self.fail_at:
      raise InterruptedError
    assert not test
    workdir.mkdir(parents=True, exist_ok=True)
    self.given[workdir] = (config, fold)

  def open_run(self, workdir):
    config, fold = self.given[workdir]
    return LoadedRun(config, ("liver",), Network(self, workdir, fold.split), 7)

  def find(self, part):
    """The case that a part was cut from, and where."""
    for case in self.cases.values():
      room = [n - m + 1 for n, m in zip(case.image.shape, part.shape, strict=True)]
      if min(room) < 1:
        continue
      for start in np.argwhere(case.image[: room[0], : room[1], : room[2]] == part[0, 0, 0]):
        where = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
        if np.array_equal(case.image[where], part):
          return case, where
    raise AssertionError("a part of no case")


class Network:
  def __init__(self, stages, workdir, split):
    self._stages, self._workdir, self._split = stages, workdir, split

  def predict(self, volume):
    case, where = self._stages.find(volume.array)
    self._stages.asked.append((self._workdir, case.id))
    certainty = 1.0 if case.id in self._split.training + self._split.validation else 0.9
    foreground = np.where(case.label[where] == 1, certainty, 1 - certainty).astype(np.float32)
    return np.stack([1 - foreground, foreground], -1)


@pytest.fixture
def setup(config, phantoms, monkeypatch):
  config = with_keys(
    config,
    {
      "data.dir": str(phantoms),
      "data.labels": "liver",
      "data.patch": (8, 8, 8),
      "stages.patch": (4, 4, 4),
      "stages.count": 2,
      "stages.superpixel_mm": 20.0,
    },
  )
  fold = open_fold(config.data)
  stages = Stages(fold)
  monkeypatch.setattr(chain, "train_and_test", stages.fit)
  for module in (chain, pipeline, open_run):
    monkeypatch.setattr(module, "open_run", stages.open_run)
  return config, fold, stages


def test_the_forest_learns_from_networks_that_did_not_see_its_cases(setup, tmp_path):
  config, fold, stages = setup
  train_stages(config, tmp_path)
  held_out = []
  for folder in (tmp_path / "inner0", tmp_path / "inner1"):
    rows = table.load_table(folder / "table.npz")
    for name in (FIRST, INTERIOR, BOUNDARY):
      _, given = stages.given[folder / name]
      known = {*given.split.training, *given.split.validation}
      assert not known & set(rows.ids)
    maps = rows.features[:, 9:27]
    assert maps.max() == pytest.approx(0.9)  # 1.0 is what a network says of a scan it knows
    held_out += rows.ids.tolist()
  assert sorted(held_out) == sorted(fold.split.training)
  _, kept = stages.given[tmp_path / INTERIOR]
  assert kept.split.training == fold.split.training


def test_a_case_that_went_leaves_the_others_in_their_groups(setup, tmp_path, monkeypatch):
  """Whichever it is: networks that were trained before it went do not answer for what they saw."""
  config, fold, stages = setup
  for gone in fold.split.training:
    workdir = tmp_path / gone
    stages.fail_at = workdir / "inner0" / INTERIOR
    with pytest.raises(InterruptedError):
      train_stages(config, workdir)
    _, seen = stages.given[workdir / "inner0" / FIRST]
    kept = tuple(case for case in fold.split.training if case != gone)
    rest = dataclasses.replace(fold, split=dataclasses.replace(fold.split, training=kept))
    monkeypatch.setattr(pipeline, "open_run_data", lambda *_, rest=rest: RunData(config, rest))
    stages.fail_at = workdir / "inner0" / BOUNDARY
    with pytest.raises(InterruptedError):
      train_stages(config, workdir)
    _, goes_on = stages.given[workdir / "inner0" / INTERIOR]
    assert not set(goes_on.split.test) & set(seen.split.training)
    assert {*goes_on.split.training, *goes_on.split.test} == set(kept)
    monkeypatch.setattr(pipeline, "open_run_data", lambda *_: RunData(config, fold))


def test_who_is_asked_for_the_boxes(setup, tmp_path):
  """Of the kept first stage never a training case; of an inner one its own as well."""
  config, fold, stages = setup
  train_stages(config, tmp_path)
  asked = {case for workdir, case in stages.asked if workdir == tmp_path / FIRST}
  assert asked == {*fold.split.validation, *fold.split.test}
  boxes = box_files.read_boxes(tmp_path / "boxes.json")
  for folder in (tmp_path / "inner0", tmp_path / "inner1"):
    inner = box_files.read_boxes(folder / "boxes.json")
    for case in table.load_table(folder / "table.npz").ids:
      box = label_box(stages.cases[case], config.data)
      assert boxes[case] == inner[case].union_with(box)
    assert inner.keys() == boxes.keys() - set(fold.split.test)


def test_training_boxes_hold_their_labels(setup, tmp_path, monkeypatch):
  config, fold, stages = setup
  small = Box((-5.0, -5.0, -5.0), (5.0, 5.0, 5.0))
  monkeypatch.setattr(chain, "locate_organ", lambda *_: small)
  folder = tmp_path / "chain"
  folder.mkdir()
  bodies = dict.fromkeys(fold.dataset.ids, small)
  chain.train_chain(config, folder, fold, bodies)
  boxes = box_files.read_boxes(folder / "boxes.json")
  for case_id in fold.split.validation + fold.split.test:
    assert boxes[case_id] == small
  config, given = stages.given[folder / INTERIOR]
  for case_id in fold.split.training:
    case = stages.cases[case_id]
    where = boxes[case_id].voxel_slices(make_volume(case, config.data).grid)
    assert (case.label[where] == 1).sum() == (case.label == 1).sum() > 0
  assert given.boxes == boxes


def test_each_stage_is_an_ordinary_run(setup, tmp_path):
  config, _, stages = setup
  keys = {"loss_options.foreground": 0.1, "stages.foreground": (0.0, 0.3)}
  config = with_keys(config, {"loss.balanced_bce": 1.0, **keys})
  train_stages(config, tmp_path)
  first, interior, boundary = (
    stages.given[tmp_path / name] for name in (FIRST, INTERIOR, BOUNDARY)
  )
  assert (first[0].data.patch, interior[0].data.patch) == ((8, 8, 8), (4, 4, 4))
  targets = [stage[0].data.target for stage in (first, interior, boundary)]
  assert targets == ["interior", "interior", "boundary"]
  parts = [flatten(stage[0])["loss_options.foreground"] for stage in (first, interior, boundary)]
  assert parts == [0.1, 0.1, 0.3]
  assert first[1].boxes == box_files.read_boxes(tmp_path / "body.json")
  assert interior[1].boxes == boundary[1].boxes == box_files.read_boxes(tmp_path / "boxes.json")
  for stage, fold in (first, interior, boundary):
    assert stage.stages.count == 1
    assert fold.data is stage.data
    assert fold.listing["folds"][stage.data.fold]["test"] == list(fold.split.test)


def test_all_stages_are_scored_as_any_run(setup, tmp_path):
  config, fold, _ = setup
  train_stages(config, tmp_path)
  summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
  scores = summary["classes"]["liver"]
  assert summary["cases"] == len(fold.split.test)
  assert scores["dsc"]["mean"] > 0.7
  assert scores["box_recall"]["mean"] > 0.9
  assert 0.5 < scores["box_volume_reduction"]["mean"] < 1
  assert open_run_or_stages(tmp_path).config.data.patch == (4, 4, 4)


FILES = ("body.json", "inner0/boxes.json", "inner0/table.npz", "inner1/table.npz", "forest.npz")


def _content(workdir):
  found = {name: (workdir / name).read_bytes() for name in (*FILES, "boxes.json")}
  return found | {"cases": (workdir / "evaluation" / "cases.csv").read_bytes()}


@pytest.mark.slow
def test_stopped_between_any_two_stages_it_goes_on_to_the_same_result(setup, tmp_path):
  config, _, stages = setup
  train_stages(config, tmp_path / "whole")
  workdir = tmp_path / "stopped"
  for folder in ("inner0", "inner1", "."):
    for name in (FIRST, INTERIOR, BOUNDARY):
      stages.fail_at = workdir / folder / name
      with pytest.raises(InterruptedError):
        train_stages(config, workdir)
      assert json.loads((workdir / "run.json").read_text())["exit"].startswith("Interrupted")
  stages.fail_at = None
  train_stages(config, workdir)
  assert _content(workdir) == _content(tmp_path / "whole")


def test_a_run_of_another_config_is_refused_from_its_first_file_on(setup, tmp_path):
  config, _, stages = setup
  stages.fail_at = tmp_path / "inner0" / FIRST
  with pytest.raises(InterruptedError):
    train_stages(config, tmp_path)
  config = with_keys(config, {"data.spacing_mm": 12.0})
  with pytest.raises(UserError, match=r"data\.spacing_mm: 10\.0 there, 12\.0 now"):
    train_stages(config, tmp_path)


def test_an_unfinished_run_is_not_opened(setup, tmp_path):
  config, _, stages = setup
  stages.fail_at = tmp_path / BOUNDARY
  with pytest.raises(InterruptedError):
    train_stages(config, tmp_path)
  with pytest.raises(UserError, match=r"not finished \(stage2_boundary is missing\)"):
    open_run_or_stages(tmp_path)
  with pytest.raises(UserError, match="name one of them"):
    load_best(tmp_path)


def test_several_hosts_are_refused(setup, tmp_path, monkeypatch):
  monkeypatch.setattr(pipeline.jax, "process_count", lambda: 2)
  with pytest.raises(UserError, match="on one host"):
    train_stages(setup[0], tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["skimage.segmentation", "sklearn.ensemble"])
def test_a_missing_package_is_told_before_any_work(setup, tmp_path, monkeypatch, package):
  monkeypatch.setitem(__import__("sys").modules, package, None)
  with pytest.raises(UserError, match=r"pip install '.\[hnn\]'"):
    train_stages(setup[0], tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_boundary_is_not_cut_down_to_one_piece(config):
  config = with_keys(config, {"inference.largest_component": True})
  kept = [
    second_config(config, target).inference.largest_component for target in ("interior", "boundary")
  ]
  assert kept == [True, False]
