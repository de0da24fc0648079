import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.target import native_boundary
from attn_unet_jax.evaluation import scoring
from attn_unet_jax.evaluation.scoring import mean_dsc, score_folders, write_scores
from attn_unet_jax.inference.segment import ScanSegmentation
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.evaluate_run import evaluate_other, evaluate_run
from attn_unet_jax.workflows.load_run import LoadedRun
from tests.configs import with_keys


def _mask(values, spacing=2.0):
  return Volume(np.array(values, np.uint8).reshape(2, 2, 2), np.diag([spacing] * 3 + [1]))


@pytest.fixture
def folders(tmp_path):
  prediction, reference = tmp_path / "prediction", tmp_path / "reference"
  for name, answer, truth in (
    ("a", [1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0]),
    ("b", [1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]),
  ):
    write_nifti(prediction / f"{name}.nii.gz", _mask(answer))
    write_nifti(reference / f"{name}.nii", _mask(truth))
  return prediction, reference


def test_folders_are_scored_case_by_case(folders, tmp_path):
  rows = score_folders(*folders, "pancreas=1")
  assert rows["a"]["pancreas"]["dsc"] == 0.5
  assert rows["a"]["pancreas"]["reference_volume_ml"] == pytest.approx(0.016)
  assert rows["b"]["pancreas"]["precision"] == 0
  assert np.isnan(rows["b"]["pancreas"]["recall"])
  write_scores(rows, tmp_path / "out", {"part": "test"})
  table = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
  assert [(r["case"], r["class"], r["dsc"]) for r in table] == [
    ("a", "pancreas", "0.5"),
    ("b", "pancreas", "0"),
  ]
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  assert summary["cases"] == 2
  assert summary["part"] == "test"
  assert summary["classes"]["pancreas"]["dsc"]["mean"] == 0.25
  recall = summary["classes"]["pancreas"]["recall"]
  assert (recall["n"], recall["undefined"], recall["sd"]) == (1, 1, None)


def test_a_missing_prediction_is_named(folders):
  (folders[0] / "b.nii.gz").unlink()
  with pytest.raises(UserError, match=r"no masks for \['b'\]"):
    score_folders(*folders, "pancreas=1")


def test_masks_on_other_grids_are_refused(folders):
  write_nifti(folders[0] / "a.nii.gz", _mask([1, 1, 0, 0, 0, 0, 0, 0], spacing=1.0))
  with pytest.raises(UserError, match=r"a\.nii\.gz and its reference .*a\.nii: .*mm apart"):
    score_folders(*folders, "pancreas=1")


def test_a_value_without_a_meaning_is_given_one_by_the_flag_of_this_use(folders):
  with pytest.raises(UserError, match=r"values \[1\] are outside .*: --labels='pancreas=2,backg"):
    score_folders(*folders, "pancreas=2")
  with pytest.raises(UserError, match=r"^labels='pancreas=x': 'x' must be a number"):
    score_folders(*folders, "pancreas=x")


def test_a_prediction_without_a_reference_is_named_and_suffixes_may_be_capitals(folders, capsys):
  (folders[0] / "b.nii.gz").rename(folders[0] / "b.NII.GZ")
  write_nifti(folders[0] / "c.nii", _mask([0] * 8))
  assert list(score_folders(*folders, "pancreas=1")) == ["a", "b"]
  said = f"{folders[0]}: without a reference, not scored: 1, such as c\n"
  assert capsys.readouterr().out == said


@pytest.mark.parametrize(
  ("content", "said"),
  [
    ("{", r"summary\.json: not readable as JSON \(.*; remove it"),
    ("[]", r"summary\.json: not an object in JSON; remove it"),
    ('{"data": {"folder": "a"}}', "contains the scores of {'folder': 'a'}, not of {'folder': 'b'}"),
  ],
)
def test_another_set_is_not_scored_over_what_cannot_be_told_from_it(tmp_path, content, said):
  summary = tmp_path / "evaluation" / "other" / "summary.json"
  summary.parent.mkdir(parents=True)
  summary.write_text(content)
  other = SimpleNamespace(name="other", about={"data": {"folder": "b"}})
  with pytest.raises(UserError, match=said):
    evaluate_other(None, other, tmp_path)
  assert summary.read_text() == content


@pytest.mark.parametrize("blocked", ["evaluation", "predictions"])
def test_nothing_is_segmented_where_scores_cannot_be_written(tmp_path, blocked):
  """Lest new masks lie beside old scores."""
  (tmp_path / blocked).write_text("")
  with pytest.raises(UserError, match=rf"{blocked}: cannot be written \(Not a directory\)"):
    evaluate_run(None, None, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [blocked]


def test_a_network_of_the_boundary_is_scored_against_the_boundary(config):
  grid = np.stack(np.meshgrid(*[np.arange(24) - 11.5] * 3), -1)
  ball = Volume((np.linalg.norm(grid, axis=-1) < 6).astype(np.uint8), np.eye(4))
  case = NativeCase("a", Volume(np.zeros((24, 24, 24), np.int16), np.eye(4)), ball, "a")
  dataset = SimpleNamespace(load=lambda _: case)
  fold = SimpleNamespace(dataset=dataset, mapping=parse_mapping("pancreas=1", None), boxes=None)
  config = with_keys(config, {"data.spacing_mm": 1.0})
  whole, shell = (_answering(mask) for mask in (ball, native_boundary(ball, 1.0)))
  for target, right, wrong in (("interior", whole, shell), ("boundary", shell, whole)):
    config = with_keys(config, {"data.target": target})
    assert mean_dsc(fold, ["a"], right, config) == 1
    assert mean_dsc(fold, ["a"], wrong, config) < 0.9


def test_validation_scores_the_largest_piece_where_it_alone_is_kept(config):
  label = np.zeros((24, 24, 24), np.uint8)
  label[4:12, 4:12, 4:12] = 1
  answer = label.copy()
  answer[18:22, 18:22, 18:22] = 1
  ball, found = (Volume(array, np.eye(4)) for array in (label, answer))
  case = NativeCase("a", Volume(np.zeros((24, 24, 24), np.int16), np.eye(4)), ball, "a")
  dataset = SimpleNamespace(load=lambda _: case)
  fold = SimpleNamespace(dataset=dataset, mapping=parse_mapping("pancreas=1", None), boxes=None)
  config = with_keys(config, {"data.spacing_mm": 1.0})
  assert mean_dsc(fold, ["a"], _answering(found), config) == pytest.approx(2 * 512 / (1024 + 64))
  config = with_keys(config, {"inference.largest_component": True})
  assert mean_dsc(fold, ["a"], _answering(found), config) == 1


def _answering(mask):
  """A system that answers with this mask."""
  probabilities = np.stack([1 - mask.array, mask.array], -1).astype(np.float32)
  return SimpleNamespace(predict=lambda volume: probabilities)


AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])  # X points to the left


@pytest.fixture
def segmented(monkeypatch):
  """A fold of cases whose label, and whose segmentation, are given; the box that was looked at."""

  def of(label, prediction, labels="a=1,b=2,unlabelled=3", box=None, **fold):
    volume = Volume(np.array(label, np.uint8), AFFINE)
    case = NativeCase("x", Volume(np.zeros(volume.shape, np.int16), AFFINE), volume, "x")

    def found(image, system, config, locate, name):
      return ScanSegmentation(Volume(np.array(prediction, np.uint8), AFFINE), box or locate(image))

    monkeypatch.setattr(scoring, "segment_scan", found)
    dataset = SimpleNamespace(load=lambda _: case)
    return SimpleNamespace(
      dataset=dataset, mapping=parse_mapping(labels, None), **{"boxes": None, **fold}
    )

  return of


def test_a_case_is_scored_class_by_class_in_mm_where_it_is_labelled(config, segmented):
  """Class a lies two voxels of 3 mm off: its surfaces are 2 and 1 of them apart (test_surface)."""
  label, prediction = np.zeros((2, 6, 5, 9), np.uint8)
  label[2, 2, 2], prediction[2, 2, 4] = 1, 1
  label[4, 3, 6] = prediction[4, 3, 6] = 2
  label[0], prediction[0] = 3, 1  # nobody knows what that is
  fold = segmented(label, prediction)
  (scores,) = scoring.score_cases(fold, ["x"], None, config, surfaces=True).values()
  assert (scores["a"]["dsc"], scores["b"]["dsc"]) == (0, 1)
  assert scores["a"]["assd_mm"] == pytest.approx(1.5 * 3)
  assert scores["b"]["assd_mm"] == 0
  assert scores["a"]["volume_ml"] == pytest.approx(0.006)
  assert mean_dsc(fold, ["x"], None, config) == 0.5


def test_the_box_is_scored_class_by_class_on_canonical_axes(config, segmented):
  """It holds the right half of the field, that is the lower X here, and class a alone."""
  label = np.zeros((8, 4, 4), np.uint8)
  label[1, 1, 1], label[6, 1, 1] = 1, 2
  box = Box((0.0, -4.0, -6.0), (4.0, 4.0, 6.0))
  fold = segmented(label, label, box=box)
  (scores,) = scoring.score_cases(fold, ["x"], None, config).values()
  assert (scores["a"]["box_recall"], scores["b"]["box_recall"]) == (1, 0)
  assert scores["a"]["box_volume_reduction"] == scores["b"]["box_volume_reduction"] == 0.5


def test_the_boundary_is_as_deep_as_a_working_voxel(config, segmented):
  label = np.zeros((12, 10, 8), np.uint8)
  label[1:11, 1:9, 1:7] = 1
  config = with_keys(config, {"data.spacing_mm": 4.0, "data.target": "boundary"})
  edge = native_boundary(Volume(label, AFFINE), 4.0).array
  assert mean_dsc(segmented(label, edge, "a=1"), ["x"], None, config) == 1
  assert (edge != native_boundary(Volume(label, AFFINE), 1.0).array).any()


def test_another_part_is_scored_beside_the_test_cases_and_inside_the_runs_boxes(
  config, segmented, tmp_path
):
  label = np.zeros((8, 4, 4), np.uint8)
  label[1, 1, 1] = 1
  box = Box((0.0, -4.0, -6.0), (4.0, 4.0, 6.0))
  split = SimpleNamespace(validation=("x",), test=("none",))
  fold = segmented(label, label, "a=1", boxes={"x": box}, split=split)
  evaluate_run(LoadedRun(config, ("a",), None, 7), fold, tmp_path, "validation")
  assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {"validation"}
  folder = tmp_path / "evaluation" / "validation"
  (row,) = csv.DictReader((folder / "cases.csv").read_text().splitlines())
  assert [row[name] for name in ("case", "dsc", "assd_mm", "box_recall")] == ["x", "1", "0", "1"]
  summary = json.loads((folder / "summary.json").read_text())
  assert (summary["part"], summary["checkpoint_step"]) == ("validation", 7)
  assert (tmp_path / "predictions" / "validation" / "x.nii.gz").is_file()


def test_masks_of_a_folder_are_compared_voxel_by_voxel_however_they_are_stored(tmp_path):
  """Distances in mm, and nothing counted where the reference is unlabelled."""
  label, prediction = np.zeros((2, 6, 5, 9), np.uint8)
  label[2, 2, 2], prediction[2, 2, 4] = 1, 1
  label[0], prediction[0] = 3, 1
  turned = AFFINE @ np.diag([-1.0, 1, 1, 1])
  turned[0, 3] = -5
  write_nifti(tmp_path / "prediction" / "x.nii", Volume(prediction[::-1], turned))
  write_nifti(tmp_path / "reference" / "x.nii", Volume(label, AFFINE))
  folders = (tmp_path / "prediction", tmp_path / "reference")
  (scores,) = score_folders(*folders, "a=1,unlabelled=3").values()
  assert scores["a"]["assd_mm"] == pytest.approx(1.5 * 3)
  assert (scores["a"]["dsc"], scores["a"]["volume_ml"]) == (0, pytest.approx(0.006))


def test_an_empty_folder_is_refused(tmp_path, folders):
  (tmp_path / "none").mkdir()
  with pytest.raises(UserError, match="no NIfTI masks"):
    score_folders(folders[0], tmp_path / "none", "pancreas=1")
