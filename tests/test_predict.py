"""Which scans a path holds, and that one which cannot be segmented does not keep the others."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import segment_scans as workflow
from attn_unet_jax.workflows.list_scans import list_scans
from attn_unet_jax.workflows.load_run import LoadedRun
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


def _scan(path, *, bad=False):
  values = np.random.default_rng(0).integers(-1000, 1000, GRID).astype(np.float32)
  values[0, 0, 0] = np.nan if bad else 0
  write_nifti(path, Volume(values, np.eye(4)))


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
