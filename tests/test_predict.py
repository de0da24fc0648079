"""Which scans a path holds, and that one which cannot be segmented does not keep the others."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import segment_scans as workflow
from attn_unet_jax.workflows.list_scans import list_scans
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
  trained = LoadedRun(config, ("pancreas",), system, 1)
  monkeypatch.setattr(workflow, "open_run_or_stages", lambda _: trained)
  return lambda *paths: workflow.segment_scans(Path("run"), *paths)


def _scan(path, *, bad=False, spacing=1.0):
  values = np.random.default_rng(0).integers(-1000, 1000, GRID).astype(np.float32)
  values[0, 0, 0] = np.nan if bad else 0
  write_nifti(path, Volume(values, np.diag([spacing, spacing, spacing, 1])))


@pytest.mark.parametrize(
  ("bad", "said"),
  [
    (["b"], r"^1 of 3 scans not segmented, the first: .*b\.nii: 1 of 336 voxels are NaN"),
    (["a", "b"], r"^2 of 3 scans not segmented, the first: .*a\.nii: "),
  ],
)
def test_a_bad_scan_in_a_folder_does_not_keep_the_others(told, tmp_path, capsys, bad, said):
  scans, masks = tmp_path / "scans", tmp_path / "masks"
  for name in "abc":
    _scan(scans / f"{name}.nii", bad=name in bad)
  with pytest.raises(UserError, match=said):
    told(scans, masks)
  good = sorted(set("abc") - set(bad))
  assert sorted(path.name for path in masks.iterdir()) == [f"{name}.nii.gz" for name in good]
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
  monkeypatch.setattr(workflow, "open_run_or_stages", lambda _: trained)
  scan, mask = tmp_path / "a.nii.gz", tmp_path / "out" / "m.nii.gz"
  answer[..., 0] = 1
  answer[:2, ..., :] = (0, 1, 0)
  answer[5, 6, 7] = (0, 0, 1)
  _scan(scan, spacing=10.0)
  workflow.segment_scans(Path("run"), scan, mask, AnswerOptions(as_json=True))
  assert f"1/1 {mask}: 1 liver 112.0 ml, 2 spleen 1.0 ml; " in capsys.readouterr().out
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
  workflow.segment_scans(Path("run"), scan, tmp_path / "n.nii")
  assert not (tmp_path / "n.json").exists()
  np.testing.assert_array_equal(read_label(tmp_path / "n.nii").array, read_label(mask).array)


def test_a_doubt_is_refused_before_the_network_is_asked_or_said_if_it_is_accepted(
  told, tmp_path, capsys
):
  values = np.random.default_rng(0).integers(0, 256, GRID).astype(np.uint8)
  write_nifti(tmp_path / "a.nii", Volume(values, np.eye(4)))
  with pytest.raises(UserError, match=r"a\.nii: .* 8-bit picture; .*--accept=hounsfield$"):
    told(tmp_path / "a.nii", tmp_path / "m.nii")
  assert not (tmp_path / "m.nii").exists()
  accepting = AnswerOptions(accept=frozenset({"hounsfield"}))
  workflow.segment_scans(Path("run"), tmp_path / "a.nii", tmp_path / "m.nii", accepting)
  assert (tmp_path / "m.nii").exists()
  assert "accepted (hounsfield): " in capsys.readouterr().out


def test_what_is_skipped_is_counted_in_one_line(told, tmp_path, capsys):
  _scan(tmp_path / "scans" / "a.nii")
  for name in ("README", "dataset.json", ".DS_Store"):
    (tmp_path / "scans" / name).write_text("{}")
  told(tmp_path / "scans", tmp_path / "masks")
  first = capsys.readouterr().out.splitlines()[0]
  assert first == f"{tmp_path}/scans: skipped: 1 hidden, 2 neither NIfTI nor DICOM"
