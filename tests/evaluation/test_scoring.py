import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.target import native_boundary
from attn_unet_jax.evaluation import scoring
from attn_unet_jax.evaluation.options import EvaluationOptions
from attn_unet_jax.evaluation.scoring import mean_dsc, score_folders, write_scores
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.options import OptionError
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.evaluate_run import (
  WantedMaps,
  evaluate_other,
  evaluate_run,
  leave_unprocessed,
  score_by_rules,
)
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
    ("b", "pancreas", "nan"),
  ]
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  assert summary["cases"] == 2
  assert summary["part"] == "test"
  assert summary["empty_masks"] == "reference"
  counts = {"cases": 2, "with_class": 1, "missed": 0, "false_alarms": 1}
  assert summary["counts"] == {"pancreas": counts}
  assert summary["classes"]["pancreas"]["dsc"]["mean"] == 0.5
  assert summary["worst"] == {"pancreas": [{"case": "a", "dsc": 0.5}]}
  recall = summary["classes"]["pancreas"]["recall"]
  assert (recall["n"], recall["undefined"], recall["sd"]) == (1, 1, None)


def test_a_class_that_nobody_labelled_is_not_scored_in_folders(folders):
  rows = score_folders(*folders, "liver=none,pancreas=1")
  assert [list(scores) for scores in rows.values()] == [["pancreas"]] * 2
  assert rows["a"]["pancreas"]["dsc"] == 0.5


def test_surfaces_of_a_tilted_grid_are_measured_on_straight_axes():
  """Two blocks, one 4 mm to the front of the other, on straight slices and on tilted ones."""
  straight = np.diag([2.0, 2.0, 3.0, 1.0])
  tilted = straight.copy()
  tilted[1, 2] = 2.0  # a whole voxel per slice, so that the blocks are the same
  masks = np.zeros((2, 16, 40, 12), np.uint8)
  masks[0, 3:12, 22:30, 2:10] = masks[1, 3:12, 24:32, 2:10] = 1
  slanted = np.stack([np.roll(masks[..., k], -k, axis=2) for k in range(12)], axis=-1)
  wanted, found = (
    scoring.score_prediction(pair[0], Volume(pair[1], affine), {"organ": 1})["organ"]
    for pair, affine in ((masks, straight), (slanted, tilted))
  )
  assert wanted["hd_mm"] == 4
  for name, value in wanted.items():
    assert found[name] == pytest.approx(value, abs=1e-12), name


def _block(x, spacing=(0.8, 0.8, 5.0)):
  mask = np.zeros((30, 28, 16), np.uint8)
  mask[x : x + 10, 8:18, 4:10] = 1
  return Volume(mask, np.diag([*spacing, 1.0]))


def test_every_mean_is_printed_with_its_n_and_missed_cases_are_counted(tmp_path, capsys):
  """Four cases, in two of which the organ is missed: their precision and distance are undefined."""
  nothing = Volume(0 * _block(8).array, _block(8).affine)
  for name, mask in {"a": _block(8), "b": _block(10), "c": nothing, "d": nothing}.items():
    write_nifti(tmp_path / "p" / f"{name}.nii.gz", mask)
    write_nifti(tmp_path / "r" / f"{name}.nii.gz", _block(8))
  rows = score_folders(tmp_path / "p", tmp_path / "r", "pancreas=1")
  write_scores(rows, tmp_path / "out")
  said, _, *table, files = capsys.readouterr().out.splitlines()
  assert said == "pancreas, 4 cases: missed in 2 of 4; lowest dsc: c 0.000, d 0.000, b 0.800"
  rows = {line.split()[0]: line for line in table}
  assert rows["dsc"].startswith("  dsc              0.450 ± 0.526  ")
  assert "  0.900 ± 0.141  " in rows["precision"]
  complete = {"dsc", "recall", "volume_error_ml", "nsd_2mm", "nsd_3mm"}
  assert {name for name, line in rows.items() if line.endswith("  4 of 4")} == complete
  found = {name for name, line in rows.items() if line.endswith("  2 of 4")}
  assert found == {"precision", "assd_mm", "assd_voxels_mm", "hd95_mm"}
  assert files.endswith(
    "summary.json; DSC, IoU, NSD: of cases whose reference has the class (empty_masks=reference)"
  )


def test_a_class_in_no_reference_has_no_dsc_whatever_is_predicted(folders, tmp_path, capsys):
  for name in "ab":
    (folders[1] / f"{name}.nii").unlink()
    write_nifti(folders[1] / f"{name}.nii", _mask([0] * 8))
  write_nifti(folders[0] / "a.nii.gz", _mask([0] * 8))
  write_scores(score_folders(*folders, "pancreas=1"), tmp_path / "out")
  said, _, dsc, precision, *_ = capsys.readouterr().out.splitlines()
  assert said.endswith(": missed in 0 of 0; 2 without it, false alarms in 1 of them")
  assert re.fullmatch(r"  dsc +undefined +0 of 2", dsc)
  assert re.fullmatch(r"  precision +0\.000 +1 of 2", precision)
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  found = summary["classes"]["pancreas"]["dsc"]
  assert {key for key, value in found.items() if value is None} == found.keys() - {"n", "undefined"}
  assert (found["n"], found["undefined"]) == (0, 2)
  assert summary["worst"] == {"pancreas": []}


@pytest.mark.parametrize(("rule", "dsc"), [("reference", 0.5), ("either", 0.25), ("one", 0.5)])
def test_the_rule_for_empty_masks_is_chosen_and_named(folders, tmp_path, capsys, rule, dsc):
  """A case of DSC 1/2, a false alarm, and one where nothing is and nothing is found."""
  for folder in folders:
    write_nifti(folder / "c.nii", _mask([0] * 8))
  rows = score_folders(*folders, "pancreas=1", EvaluationOptions(empty_masks=rule))
  write_scores(rows, tmp_path / "out", empty=rule)
  assert capsys.readouterr().out.endswith(f"(empty_masks={rule})\n")
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  assert summary["empty_masks"] == rule
  found = summary["classes"]["pancreas"]["dsc"]
  assert (found["mean"], found["n"]) == (dsc, {"reference": 1, "either": 2, "one": 3}[rule])


def test_a_missing_prediction_is_named(folders):
  (folders[0] / "b.nii.gz").unlink()
  with pytest.raises(UserError, match=r"no masks for \['b'\]"):
    score_folders(*folders, "pancreas=1")


def test_masks_that_are_called_after_a_channel_are_explained(folders):
  (folders[0] / "b.nii.gz").rename(folders[0] / "b_0000.nii.gz")
  with pytest.raises(
    UserError, match=r"no masks for \['b'\].*_0000 is nnU-Net's.*rename b_0000 to b"
  ):
    score_folders(*folders, "pancreas=1")


def test_masks_on_other_grids_are_refused(folders):
  write_nifti(folders[0] / "a.nii.gz", _mask([1, 1, 0, 0, 0, 0, 0, 0], spacing=1.0))
  with pytest.raises(UserError, match=r"a\.nii\.gz and its reference .*a\.nii: .*mm apart"):
    score_folders(*folders, "pancreas=1")


def test_a_value_without_a_meaning_is_given_one_by_the_flag_of_this_use(folders):
  with pytest.raises(UserError, match=r"values \[1\] are outside .*: --labels='pancreas=1' takes"):
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
    assert mean_dsc(fold, ["a"], right, config) == (1, 1, 1)
    assert mean_dsc(fold, ["a"], wrong, config).mean < 0.9


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
  found_too = mean_dsc(fold, ["a"], _answering(found), config).mean
  assert found_too == pytest.approx(2 * 512 / (1024 + 64))
  config = with_keys(config, {"inference.largest_component": True})
  assert mean_dsc(fold, ["a"], _answering(found), config).mean == 1


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
      canonical = to_canonical(Volume(np.array(prediction, np.uint8), AFFINE))
      values = np.eye(4, dtype=np.float32)[canonical.array]
      grid = canonical.grid
      return ScanProbabilities(values, grid, grid, image.grid, box or locate(image))

    monkeypatch.setattr(scoring, "predict_scan", found)
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
  assert scores["a"]["assd_voxels_mm"] == pytest.approx(2 * 3)
  assert scores["b"]["assd_mm"] == scores["b"]["assd_voxels_mm"] == 0
  assert (scores["a"]["hd_mm"], scores["a"]["hd95_mm"]) == (6, 6)
  assert [scores["a"][f"nsd_{tolerance}mm"] for tolerance in (2, 3)] == [0, 0.5]
  assert scores["b"]["nsd_2mm"] == 1
  # Of the 5 x 5 x 9 known voxels all around, two are sure and wrong.
  assert scores["a"]["ece"] == pytest.approx(2 / (5 * 5 * 9))
  assert scores["b"]["ece"] == 0
  assert scores["a"]["volume_ml"] == pytest.approx(0.006)
  assert mean_dsc(fold, ["x"], None, config) == (0.5, 2, 2)


@pytest.mark.parametrize(
  ("rule", "score"), [("reference", (0.5, 1, 2)), ("either", (0.25, 2, 2)), ("one", (0.25, 2, 2))]
)
def test_validation_follows_the_runs_rule(config, segmented, rule, score):
  """Class a is half found, b is a false alarm."""
  label, prediction = np.zeros((2, 6, 5, 9), np.uint8)
  label[2, 2, 2:5] = 1
  prediction[2, 2, 2], prediction[4, 3, 6] = 1, 2
  config = with_keys(config, {"evaluation.empty_masks": rule})
  assert mean_dsc(segmented(label, prediction), ["x"], None, config) == score


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
  assert mean_dsc(segmented(label, edge, "a=1"), ["x"], None, config).mean == 1
  assert (edge != native_boundary(Volume(label, AFFINE), 1.0).array).any()


def test_another_part_is_scored_beside_the_test_cases_and_inside_the_runs_boxes(
  config, segmented, tmp_path
):
  label = np.zeros((8, 4, 4), np.uint8)
  label[1, 1, 1] = 1
  box = Box((0.0, -4.0, -6.0), (4.0, 4.0, 6.0))
  split = SimpleNamespace(validation=("x",), test=("none",))
  fold = segmented(label, label, "a=1", boxes={"x": box}, split=split)
  stale = tmp_path / "evaluation" / "validation" / "attention.csv"
  stale.parent.mkdir(parents=True)
  stale.write_text("of another checkpoint")
  evaluate_run(LoadedRun(config, ("a",), None, 7), fold, tmp_path, "validation")
  assert not stale.exists()
  assert not (tmp_path / "uncertainty").exists()
  assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {"validation"}
  folder = tmp_path / "evaluation" / "validation"
  (row,) = csv.DictReader((folder / "cases.csv").read_text().splitlines())
  assert [row[name] for name in ("case", "dsc", "assd_mm", "box_recall")] == ["x", "1", "0", "1"]
  summary = json.loads((folder / "summary.json").read_text())
  assert (summary["part"], summary["checkpoint_step"]) == ("validation", 7)
  assert (tmp_path / "predictions" / "validation" / "x.nii.gz").is_file()
  wanted = WantedMaps(lambda image, *_: {"level2/0": to_canonical(image)}, uncertainty=True)
  evaluate_run(LoadedRun(config, ("a",), None, 7), fold, tmp_path, "validation", wanted)
  assert stale.read_text().startswith("case,gate,organ,shell,elsewhere\nx,level2/0,")
  assert (tmp_path / "uncertainty" / "validation" / "x.nii.gz").is_file()
  # What the run expects of its masks stands beside what they are.
  expected = {"a": QualityModel(intercept=-0.25), "b": QualityModel(), "unknown": QualityModel()}
  judging = LoadedRun(config, ("a",), None, 7, quality=expected)
  evaluate_run(judging, fold, tmp_path, "validation")
  assert (folder / "quality.csv").read_text() == "case,class,expected_dsc,dsc\nx,a,0.75,1\n"
  summary = json.loads((folder / "summary.json").read_text())
  assert summary["quality"] == {"a": {"cases": 1, "spearman": None, "mean_difference": 0.25}}
  evaluate_run(LoadedRun(config, ("a",), None, 7), fold, tmp_path, "validation")
  assert not (folder / "quality.csv").exists()
  # Without steps because none were chosen, and because none were wanted, are not the same.
  assert "no_postprocess" not in json.loads((folder / "summary.json").read_text())
  bare = leave_unprocessed(LoadedRun(config, ("a",), None, 7))
  evaluate_run(bare, fold, tmp_path, "validation")
  assert json.loads((folder / "summary.json").read_text())["no_postprocess"] is True


@pytest.mark.parametrize("stops_at", ["x", "y"])
def test_a_stopped_evaluation_leaves_no_scores_of_other_masks(
  config, segmented, tmp_path, stops_at
):
  label = np.zeros((8, 4, 4), np.uint8)
  label[1, 1, 1] = 1
  fold = segmented(label, label, "a=1", split=SimpleNamespace(test=("x", "y")))
  trained = LoadedRun(config, ("a",), None, 7)
  evaluate_run(trained, fold, tmp_path)
  masks = {path: path.stat().st_mtime_ns for path in (tmp_path / "predictions").iterdir()}
  load = fold.dataset.load

  def load_until(case_id):
    if case_id == stops_at:
      raise KeyboardInterrupt
    return load(case_id)

  fold.dataset.load = load_until
  with pytest.raises(KeyboardInterrupt):
    evaluate_run(trained, fold, tmp_path)
  left = {path.name for path in (tmp_path / "evaluation").iterdir()}
  if stops_at == "x":  # no mask is new
    assert left == {"cases.csv", "summary.json"}
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
  else:
    assert left == set()


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


def test_every_tolerance_of_the_surface_dice_is_a_column(folders):
  rows = score_folders(*folders, "pancreas=1", EvaluationOptions(nsd_mm=(0, 2.5)))
  found = {name: value for name, value in rows["a"]["pancreas"].items() if "nsd" in name}
  assert found.keys() == {"nsd_0mm", "nsd_2.5mm"}
  assert 0 < found["nsd_0mm"] < found["nsd_2.5mm"] == 1
  with pytest.raises(OptionError, match="distances of at least 0 mm"):
    EvaluationOptions(nsd_mm=("2",))


def test_a_run_is_scored_by_the_rules_that_are_asked_for(config):
  rules = {"nsd_mm": (1.0,), "empty_masks": "either"}
  scored = score_by_rules(LoadedRun(config, ("a",), None, 7), rules)
  assert scored.config.evaluation == EvaluationOptions(**rules)
  assert scored.config.data == config.data


def test_an_empty_folder_is_refused(tmp_path, folders):
  (tmp_path / "none").mkdir()
  with pytest.raises(UserError, match="no NIfTI masks"):
    score_folders(folders[0], tmp_path / "none", "pancreas=1")
