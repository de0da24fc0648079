"""Which scans a path holds, and that one which cannot be segmented does not keep the others."""

import collections
import csv
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import answer_scan as answering
from attn_unet_jax.workflows import segment_scans as workflow
from attn_unet_jax.workflows.list_scans import ScanListing, list_scans
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions
from tests.configs import with_keys

GRID = (6, 7, 8)


@pytest.fixture
def told(config, monkeypatch):
  """Segments these scans into these masks, with a network that finds its class everywhere."""
  config = with_keys(config, {"data.spacing_mm": 1.0})
  answer = np.zeros((*GRID, 2), np.float32)
  answer[..., 1] = 1
  system = SimpleNamespace(predict=lambda volume: answer)
  trained = LoadedRun(config, ("pancreas",), system, 1, digest="a network")
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: trained)
  return lambda *paths, **options: workflow.segment_scans(
    [Path("run")], *paths, AnswerOptions(**options)
  )


def _scan(path, *, bad=False, spacing=1.0):
  values = np.random.default_rng(0).integers(-1000, 1000, GRID).astype(np.float32)
  values[0, 0, 0] = np.nan if bad else 0
  write_nifti(path, Volume(values, np.diag([spacing, spacing, spacing, 1])))


@pytest.mark.parametrize(
  ("bad", "said"),
  [
    (["b"], r"^1 of 3 scans not segmented: .*b\.nii: 1 of 336 voxels are NaN"),
    (["a", "b"], r"^2 of 3 scans not segmented: .*a\.nii: .*; .*b\.nii: .*volumes\.csv has a line"),
  ],
)
def test_a_bad_scan_in_a_folder_does_not_keep_the_others(told, tmp_path, capsys, bad, said):
  scans, masks = tmp_path / "scans", tmp_path / "masks"
  for name in "abc":
    _scan(scans / f"{name}.nii", bad=name in bad)
  with pytest.raises(UserError, match=said):
    told(scans, masks)
  good = sorted(set("abc") - set(bad))
  assert sorted(path.name for path in masks.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in good]
  assert read_label(masks / "c.nii.gz").array.all()
  lines = capsys.readouterr().out.splitlines()
  for name, line in zip("abc", lines, strict=True):
    assert (f"{masks}/{name}.nii.gz: not written (" in line) == (name in bad)


def test_a_scan_that_may_not_be_read_does_not_keep_the_others(told, tmp_path, unreadable):
  for name in "ab":
    _scan(tmp_path / "scans" / f"{name}.nii")
  unreadable(tmp_path / "scans" / "a.nii")
  with pytest.raises(UserError, match=r"1 of 2 .*a\.nii: cannot be read \(Permission denied\)"):
    told(tmp_path / "scans", tmp_path / "masks")
  assert (tmp_path / "masks" / "b.nii.gz").is_file()


def test_the_one_scan_that_was_named_is_told_alone(told, tmp_path, capsys):
  _scan(tmp_path / "a.nii", bad=True)
  with pytest.raises(UserError, match=r"a\.nii: 1 of 336 voxels") as refused:
    told(tmp_path / "a.nii", tmp_path / "m.nii")
  assert str(refused.value).startswith(f"{tmp_path}/a.nii: ")
  assert capsys.readouterr().out == ""


def test_a_folder_in_the_masks_place_is_called_one(tmp_path):
  _scan(tmp_path / "a.nii")
  (tmp_path / "m.nii.gz").mkdir()
  with pytest.raises(UserError, match=r"m\.nii\.gz: a folder; name a file in it"):
    list_scans(tmp_path / "a.nii", tmp_path / "m.nii.gz")


def test_every_class_has_its_millilitres_and_its_name(config, monkeypatch, tmp_path, capsys):
  """336 voxels of 1 ml each: a third of them the first class, one the second."""
  config = with_keys(config, {"data.spacing_mm": 10.0})
  answer = np.zeros((*GRID, 3), np.float32)
  trained = LoadedRun(
    config, ("liver", "spleen"), SimpleNamespace(predict=lambda volume: answer), 1
  )
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: trained)
  scan, mask = tmp_path / "a.nii.gz", tmp_path / "out" / "m.nii.gz"
  answer[..., 0] = 1
  answer[:2, ..., :] = (0, 1, 0)
  answer[5, 6, 7] = (0, 0, 1)
  _scan(scan, spacing=10.0)
  workflow.segment_scans([Path("run")], scan, mask, AnswerOptions(as_json=True))
  assert f"1/1 {mask}: 1 liver 112.00 ml, 2 spleen 1.00 ml; " in capsys.readouterr().out
  said = json.loads((tmp_path / "out" / "m.json").read_text())
  assert said["voxel_volume_ml"] == pytest.approx(1)
  assert [(one["value"], one["name"], one["voxels"]) for one in said["classes"]] == [
    (1, "liver", 112),
    (2, "spleen", 1),
  ]
  assert said["classes"][1]["millilitres"] == pytest.approx(1)
  (extension,) = nib.load(mask).header.extensions
  assert extension.get_code() == 6  # a comment
  assert json.loads(extension.text) == {"labels": {"background": 0, "liver": 1, "spleen": 2}}
  pictures = AnswerOptions(preview=True, report=True, save_uncertainty=True)
  workflow.segment_scans([Path("run")], scan, tmp_path / "n.nii", pictures)
  assert not (tmp_path / "n.json").exists()
  assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")
  page = (tmp_path / "n.html").read_text()
  assert ">spleen</th><td>1.00</td>" in page
  assert '"uncertainty":{"place"' in page
  np.testing.assert_array_equal(read_label(tmp_path / "n.nii").array, read_label(mask).array)


def test_a_tilted_scan_has_its_mask_on_its_slices_and_a_warning_in_the_json(
  monkeypatch, config, tmp_path, capsys
):
  system = SimpleNamespace(predict=lambda volume: np.zeros((*volume.shape, 2), np.float32))
  trained = LoadedRun(with_keys(config, {"data.spacing_mm": 10.0}), ("liver",), system, 1)
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: trained)
  scan, mask = tmp_path / "a.nii.gz", tmp_path / "m.nii.gz"
  affine = np.diag([10.0, 10.0, 10.0, 1.0])
  affine[1, 2] = 3
  values = np.random.default_rng(0).integers(-1000, 1000, GRID).astype(np.int16)
  write_nifti(scan, Volume(values, affine))
  workflow.segment_scans([Path("run")], scan, mask, AnswerOptions(as_json=True))
  np.testing.assert_allclose(read_label(mask).affine, affine, atol=1e-5)
  said = json.loads((tmp_path / "m.json").read_text())["warnings"]
  assert any("axes are 16.7 degrees from perpendicular" in line for line in said)
  # What the screen calls a warning stands here in a list of them.
  assert f"warning: {said[0]}\n" in capsys.readouterr().out


def test_a_doubt_is_refused_before_the_network_is_asked_or_said_if_it_is_accepted(
  told, tmp_path, capsys
):
  values = np.random.default_rng(0).integers(0, 256, GRID).astype(np.uint8)
  write_nifti(tmp_path / "a.nii", Volume(values, np.eye(4)))
  with pytest.raises(UserError, match=r"a\.nii: .* 8-bit picture; .*--accept=hounsfield$"):
    told(tmp_path / "a.nii", tmp_path / "m.nii")
  assert not (tmp_path / "m.nii").exists()
  accepting = AnswerOptions(accept=frozenset({"hounsfield"}))
  workflow.segment_scans([Path("run")], tmp_path / "a.nii", tmp_path / "m.nii", accepting)
  assert (tmp_path / "m.nii").exists()
  assert "accepted (hounsfield): " in capsys.readouterr().out


def test_what_is_skipped_is_counted_in_one_line(told, tmp_path, capsys):
  _scan(tmp_path / "scans" / "a.nii")
  for name in ("README", "dataset.json", ".DS_Store"):
    (tmp_path / "scans" / name).write_text("{}")
  told(tmp_path / "scans", tmp_path / "masks")
  first = capsys.readouterr().out.splitlines()[0]
  assert first == f"{tmp_path}/scans: skipped: 1 hidden, 2 neither NIfTI nor DICOM"


# What is done is not done again


def _lines(masks):
  with (masks / "volumes.csv").open() as file:
    return {row["name"]: row for row in csv.DictReader(file)}


def _made(capsys):
  """The names of the masks that were made since the last look."""
  lines = capsys.readouterr().out.splitlines()
  return [Path(line.split()[1].rstrip(":")).name[0] for line in lines if " pancreas " in line]


@pytest.fixture
def answered(told, tmp_path, capsys):
  """A folder of three scans with their masks, and a function that asks again."""
  for name in "abc":
    _scan(tmp_path / "scans" / f"{name}.nii")
  told(tmp_path / "scans", tmp_path / "masks")
  assert _made(capsys) == ["a", "b", "c"]
  return lambda **options: told(tmp_path / "scans", tmp_path / "masks", **options)


def test_what_is_done_is_not_done_again(answered, tmp_path, capsys):
  before = (tmp_path / "masks" / "a.nii.gz").stat().st_mtime_ns
  answered()
  assert capsys.readouterr().out == "3 masks were there already; --again makes them again\n"
  assert (tmp_path / "masks" / "a.nii.gz").stat().st_mtime_ns == before
  answered(again=True)
  assert _made(capsys) == ["a", "b", "c"]


def test_a_copy_of_the_scans_is_the_same_scans(answered, told, tmp_path, capsys):
  shutil.copytree(tmp_path / "scans", tmp_path / "copy")
  told(tmp_path / "copy", tmp_path / "masks")
  assert _made(capsys) == []


def _made_masks(root):
  return [path.name for path in (root / "masks").glob("*.nii.gz")]


def _change_scan(root):
  # As long as before, and with its time set back.
  path = root / "scans" / "b.nii"
  about, content = path.stat(), bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(bytes(content))
  os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def _remove_mask(root):
  (root / "masks" / "b.nii.gz").unlink()


def _damage_record(root):
  (path,) = (
    path
    for path in (root / "masks" / ".answers").iterdir()
    if json.loads(path.read_text())["name"] == "b"
  )
  path.write_text("{")


def test_a_mask_that_somebody_corrected_is_left(answered, tmp_path, capsys):
  path = tmp_path / "masks" / "b.nii.gz"
  write_nifti(path, Volume(np.ones(GRID, np.uint8), np.eye(4)))
  corrected = path.read_bytes()
  answered()
  said = capsys.readouterr().out
  assert f"{path}: was changed since it was made, and is left; --again makes it again" in said
  assert "2 masks were there already" in said
  assert path.read_bytes() == corrected
  answered(again=True)
  assert path.read_bytes() != corrected


@pytest.mark.parametrize("change", [_change_scan, _remove_mask, _damage_record])
def test_what_is_not_what_was_answered_is_made_again(answered, tmp_path, capsys, change):
  change(tmp_path)
  answered()
  assert _made(capsys) == ["b"]
  assert sorted(_lines(tmp_path / "masks")) == ["a", "b", "c"]


@pytest.mark.parametrize("digest", ["another network", ""])
def test_another_network_or_an_unknown_one_answers_anew(answered, monkeypatch, capsys, digest):
  trained = dataclasses.replace(workflow.open_ensemble([Path("run")]), digest=digest)
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: trained)
  answered()
  assert _made(capsys) == ["a", "b", "c"]
  answered()
  assert _made(capsys) == ([] if digest else ["a", "b", "c"])


def test_what_is_to_be_written_beside_a_mask_is_written(answered, tmp_path, capsys):
  answered(as_json=True)
  assert _made(capsys) == ["a", "b", "c"]
  assert (tmp_path / "masks" / "b.json").exists()


def test_a_doubt_that_is_not_accepted_any_more_is_refused(answered, tmp_path, capsys):
  values = np.random.default_rng(0).integers(0, 256, GRID).astype(np.uint8)
  write_nifti(tmp_path / "scans" / "b.nii", Volume(values, np.eye(4)))
  answered(accept=frozenset({"hounsfield"}))
  assert _made(capsys) == ["b"]
  assert "accepted (hounsfield)" in _lines(tmp_path / "masks")["b"]["warnings"]
  answered(accept=frozenset({"hounsfield", "geometry"}))
  assert _made(capsys) == []
  with pytest.raises(UserError, match=r"1 of 3 scans not segmented: .*8-bit picture"):
    answered()


def test_a_scan_for_which_memory_does_not_suffice_stops_no_other(told, tmp_path, monkeypatch):
  for name in "ab":
    _scan(tmp_path / "scans" / f"{name}.nii")
  real = answering.write_answer

  def write(answer, *rest):
    if answer.target.name.startswith("a"):
      raise MemoryError
    return real(answer, *rest)

  monkeypatch.setattr(answering, "write_answer", write)
  with pytest.raises(UserError, match=r"1 of 2 scans not segmented: .*a\.nii: out of memory"):
    told(tmp_path / "scans", tmp_path / "masks")
  assert sorted(_made_masks(tmp_path)) == ["b.nii.gz"]


def test_a_picture_that_cannot_be_written_stops_no_other_scan(told, tmp_path):
  for name in "ab":
    _scan(tmp_path / "scans" / f"{name}.nii")
  (tmp_path / "masks" / "a.png").mkdir(parents=True)
  with pytest.raises(UserError, match=r"1 of 2 scans not segmented: .*cannot be written"):
    told(tmp_path / "scans", tmp_path / "masks", preview=True)
  assert (tmp_path / "masks" / "b.png").is_file()


def test_the_table_has_a_line_for_each_scan(told, tmp_path):
  for name in "abc":
    _scan(tmp_path / "scans" / f"{name}.nii", bad=name == "b")
  with pytest.raises(UserError):
    told(tmp_path / "scans", tmp_path / "masks")
  lines = _lines(tmp_path / "masks")
  assert list(lines["a"]) == ["name", "scan", "pancreas_ml", "seconds", "warnings", "error"]
  assert [lines[name]["pancreas_ml"] for name in "abc"] == ["0.34", "", "0.34"]
  assert "1 of 336 voxels are NaN" in lines["b"]["error"]
  assert not lines["a"]["error"]
  assert float(lines["c"]["seconds"]) >= 0
  _scan(tmp_path / "scans" / "b.nii")
  told(tmp_path / "scans", tmp_path / "masks")
  assert not _lines(tmp_path / "masks")["b"]["error"]


def test_a_kill_loses_no_line(told, tmp_path, monkeypatch):
  for name in "abc":
    _scan(tmp_path / "scans" / f"{name}.nii")
  real, seen = answering.write_answer, []

  def kill_third(answer, *rest):
    seen.append(answer)
    if len(seen) == 3:
      raise KeyboardInterrupt
    return real(answer, *rest)

  monkeypatch.setattr(answering, "write_answer", kill_third)
  with pytest.raises(KeyboardInterrupt):
    told(tmp_path / "scans", tmp_path / "masks")
  assert sorted(_lines(tmp_path / "masks")) == ["a", "b"]
  told(tmp_path / "scans", tmp_path / "masks")
  assert len(seen) == 4


def test_a_table_of_that_name_that_is_the_users_is_not_overwritten(told, tmp_path):
  _scan(tmp_path / "scans" / "a.nii")
  (tmp_path / "masks").mkdir()
  (tmp_path / "masks" / "volumes.csv").write_text("my,own\n")
  with pytest.raises(UserError, match=r"volumes\.csv: is there, but no records .*; move it away"):
    told(tmp_path / "scans", tmp_path / "masks")
  assert (tmp_path / "masks" / "volumes.csv").read_text() == "my,own\n"


def test_one_mask_that_is_named_is_made_and_nothing_else(told, tmp_path, capsys):
  _scan(tmp_path / "a.nii")
  for _ in range(2):
    told(tmp_path / "a.nii", tmp_path / "out" / "m.nii")
    assert _made(capsys) == ["m"]
  assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.nii"]


def test_the_time_that_is_left_is_said(told, tmp_path, capsys):
  for name in "ab":
    _scan(tmp_path / "scans" / f"{name}.nii")
  told(tmp_path / "scans", tmp_path / "masks")
  first, second = capsys.readouterr().out.splitlines()
  assert first.startswith("1/2 ")
  assert re.search(r"; about (\d+m)?\d+s left$", first)
  assert second.startswith("2/2 ")
  assert second.endswith(" s")


# Many inputs


def test_a_scan_of_a_table_that_is_not_there_does_not_keep_the_others(told, tmp_path):
  _scan(tmp_path / "a.nii")
  (tmp_path / "scans.csv").write_text("input,output\na.nii,first\nnowhere.nii,second\n")
  with pytest.raises(UserError, match=r"1 of 2 scans not segmented: .*nowhere\.nii: not found"):
    told(tmp_path / "scans.csv", tmp_path / "masks")
  lines = _lines(tmp_path / "masks")
  assert not lines["first"]["error"]
  assert "not found" in lines["second"]["error"]


# Steps after the network


def test_the_steps_that_the_run_chose_are_taken_unless_they_are_not_wanted(
  answered, monkeypatch, tmp_path, capsys
):
  trained = workflow.open_ensemble([Path("run")])
  chose = dataclasses.replace(trained, postprocessing=Postprocessing(smallest_ml=1.0))
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: chose)
  answered()
  assert _made(capsys) == ["a", "b", "c"]
  assert not read_label(tmp_path / "masks" / "a.nii.gz").array.any()
  answered(postprocess=False)
  assert _made(capsys) == ["a", "b", "c"]
  assert read_label(tmp_path / "masks" / "a.nii.gz").array.all()


def test_a_mirrored_scan_is_another_question(answered, capsys):
  answered(mirrors=(1,))
  assert _made(capsys) == ["a", "b", "c"]
  answered(mirrors=(1,))
  assert _made(capsys) == []


# Maps of probabilities and of doubt


def test_maps_are_written_beside_the_mask_if_they_are_asked_for(answered, tmp_path, capsys):
  masks = tmp_path / "masks"
  answered(save_probabilities=True, save_uncertainty=True)
  assert _made(capsys) == ["a", "b", "c"]
  shares = nib.load(masks / "a_probabilities.nii.gz")
  scan = nib.load(tmp_path / "scans" / "a.nii")
  assert shares.shape == (*GRID, 2)
  assert shares.get_data_dtype() == np.uint16
  np.testing.assert_array_equal(shares.get_fdata()[..., 0], 0)
  np.testing.assert_allclose(shares.get_fdata()[..., 1], 1, atol=1e-7)
  doubt = nib.load(masks / "a_uncertainty.nii.gz")
  assert doubt.shape == GRID
  assert not doubt.get_fdata().any()
  for image in (shares, doubt):
    np.testing.assert_array_equal(image.affine, scan.affine)
  answered(save_probabilities=True, save_uncertainty=True)
  assert _made(capsys) == []
  (masks / "b_uncertainty.nii.gz").unlink()
  answered(save_probabilities=True, save_uncertainty=True)
  assert _made(capsys) == ["b"]


def test_the_maps_of_gates_are_those_of_one_network(answered, monkeypatch, tmp_path, capsys):
  def measure(image, box, name):
    assert box is None
    flat = np.full(image.shape, 0.25, np.float32)
    return {"level3/0": Volume(flat, image.affine), "level2/0": Volume(2 * flat, image.affine)}

  monkeypatch.setattr(workflow, "open_attention", lambda _: measure)
  answered(attention=True)
  assert _made(capsys) == ["a", "b", "c"]
  maps = nib.load(tmp_path / "masks" / "a_attention.nii.gz")
  assert maps.shape == (*GRID, 2)
  assert b'{"maps": ["level3/0", "level2/0"]}' in maps.header.extensions[0].get_content()
  np.testing.assert_allclose(maps.get_fdata()[0, 0, 0], [0.25, 0.5], atol=1e-4)
  answered(attention=True)
  assert _made(capsys) == []
  with pytest.raises(
    UserError, match=r"--attention: shows the gates of one network, and .* 2 runs"
  ):
    workflow.segment_scans(
      [Path("a"), Path("b")], tmp_path / "scans", tmp_path / "m", AnswerOptions(attention=True)
    )


def test_the_quality_of_each_mask_is_told_and_doubt_is_flagged(told, tmp_path, monkeypatch, capsys):
  trained = workflow.open_ensemble([])
  models = {"pancreas": QualityModel(intercept=-0.5, threshold=0.75)}
  judged = dataclasses.replace(trained, quality=models)
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: judged)
  _scan(tmp_path / "scans" / "a.nii")
  told(tmp_path / "scans", tmp_path / "masks", as_json=True)
  said = capsys.readouterr().out
  assert "a.nii: the expected DSC of pancreas, 0.50, is below the run's threshold, 0.75" in said
  assert "1 pancreas 0.34 ml, expected DSC 0.50; " in said
  (one,) = json.loads((tmp_path / "masks" / "a.json").read_text())["classes"]
  assert (one["expected_dsc"], one["doubtful"]) == (0.5, True)
  with (tmp_path / "masks" / "volumes.csv").open() as file:
    (row,) = csv.DictReader(file)
  assert row["pancreas_expected_dsc"] == "0.500"
  assert "look at the mask" in row["warnings"]
  assert "warning: " not in row["warnings"]
  assert (one["millilitres"], row["pancreas_ml"]) == (0.34, "0.34")  # 336 voxels of 1 mm^3


def test_files_beside_a_mask_overwrite_no_scan_that_is_left_out(tmp_path):
  """As a NIfTI file among series whose masks are DICOM."""
  (tmp_path / "a").mkdir()
  series = FoundScan(tmp_path / "a"), tmp_path / "a.dcm"
  left_out = tmp_path / "a_uncertainty.nii.gz", tmp_path / "a_uncertainty.dcm", "is no DICOM"
  listing = ScanListing([series], collections.Counter(), [left_out])
  workflow._check_beside(listing, AnswerOptions(as_json=True))
  with pytest.raises(UserError, match=r"a_uncertainty\.nii\.gz, beside the mask a\.dcm, would ov"):
    workflow._check_beside(listing, AnswerOptions(save_uncertainty=True))


def test_files_beside_a_mask_overwrite_no_other_mask(told, tmp_path):
  for name in ("a", "a.dcm", "a_probabilities"):
    _scan(tmp_path / "scans" / f"{name}.nii")
  said = r"a_probabilities\.nii\.gz, beside the mask a\.nii\.gz, would overwrite .*; rename"
  with pytest.raises(UserError, match=said):
    told(tmp_path / "scans", tmp_path / "masks", save_probabilities=True)
  assert not (tmp_path / "masks").exists()
  told(tmp_path / "scans", tmp_path / "masks", as_json=True)
  names = {path.name for path in (tmp_path / "masks").glob("*.json")}
  assert names == {"a.json", "a.dcm.json", "a_probabilities.json"}
