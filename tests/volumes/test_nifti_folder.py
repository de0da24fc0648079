from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.nifti_folder import (
  list_nifti_files,
  nifti_stem,
  read_label_names,
  read_pair,
)
from attn_unet_jax.volumes.volume import Volume


def test_stems():
  assert nifti_stem(Path("x/scan.1.nii.gz")) == "scan.1"
  assert nifti_stem(Path("scan.nii")) == "scan"
  assert nifti_stem(Path("SCAN.NII.GZ")) == "SCAN"


def test_files_are_found_by_name_without_the_hidden_ones(tmp_path):
  for name in ("b.NII", "a.nii.gz", "._a.nii.gz", "notes.txt"):
    (tmp_path / name).write_bytes(b"")
  assert list_nifti_files(tmp_path) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.NII"}
  assert list_nifti_files(tmp_path / "none") == {}


def test_no_dataset_json_and_one_without_labels_name_nothing(tmp_path):
  assert read_label_names(tmp_path) is None
  (tmp_path / "dataset.json").write_text("{}")
  assert read_label_names(tmp_path) is None


def test_a_label_comes_on_its_images_axes_and_a_shift_is_told(tmp_path):
  values = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)
  write_nifti(tmp_path / "i.nii", Volume(values, np.diag([2.0, 2, 2, 1])))
  turned = np.diag([-2.0, 2, 2, 1])
  turned[0, 3] = 8.05
  write_nifti(tmp_path / "l.nii", Volume((values > 0).astype(np.uint8)[::-1], turned))
  image, label, note = read_pair(tmp_path / "i.nii", tmp_path / "l.nii")
  np.testing.assert_array_equal(image.array, values)
  np.testing.assert_array_equal(label.array, values > 0)
  np.testing.assert_array_equal(label.affine, image.affine)
  assert "0.0500 mm apart" in note
  turned[0, 3] = 7
  write_nifti(tmp_path / "l.nii", Volume((values > 0).astype(np.uint8)[::-1], turned))
  with pytest.raises(UserError, match=r"l\.nii and its image .*i\.nii: voxels up to 1\.000 mm"):
    read_pair(tmp_path / "i.nii", tmp_path / "l.nii")
