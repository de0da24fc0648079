import json
import re
from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.nifti_folder import (
  explain_channel_names,
  list_nifti_files,
  nifti_stem,
  read_label_names,
  read_pair,
)
from attn_unet_jax.volumes.volume import Volume
from tests.drawn_ct import drawn_ct, drawn_label


def test_stems():
  assert nifti_stem(Path("x/scan.1.nii.gz")) == "scan.1"
  assert nifti_stem(Path("scan.nii")) == "scan"
  assert nifti_stem(Path("SCAN.NII.GZ")) == "SCAN"


def test_files_are_found_by_name_without_the_hidden_ones(tmp_path):
  for name in ("b.NII", "a.nii.gz", "._a.nii.gz", "notes.txt"):
    (tmp_path / name).write_bytes(b"")
  assert list_nifti_files(tmp_path) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.NII"}
  assert list_nifti_files(tmp_path / "none") == {}


def test_a_name_that_is_not_utf_8_is_none_of_a_case(tmp_path):
  path = tmp_path / "caf\udce9.nii"  # Latin-1 on the disk, as Python reads it
  path.write_bytes(b"")
  with pytest.raises(UserError, match=r"caf\udce9\.nii: its name is not UTF-8.*; rename it"):
    list_nifti_files(tmp_path)
  assert list_nifti_files(tmp_path, any_name=True) == {"caf\udce9": path}


def test_no_dataset_json_and_one_without_labels_name_nothing(tmp_path):
  assert read_label_names(tmp_path) is None
  (tmp_path / "dataset.json").write_text("{}")
  assert read_label_names(tmp_path) is None


@pytest.mark.parametrize("values", [[1, 2], [], [1, 2, 3]])
def test_regions_are_refused_by_name_with_the_way_out(tmp_path, values):
  labels = {"background": 0, "whole": values, "core": 2}
  (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
  joined = "+".join(map(str, values)) or "VALUE+VALUE"
  way = rf"dataset\.json: 'whole' is a region.*--config\.data\.labels='whole={re.escape(joined)}'"
  with pytest.raises(UserError, match=way):
    read_label_names(tmp_path)


def test_a_list_of_one_is_a_value_and_a_fraction_is_none(tmp_path):
  file = tmp_path / "dataset.json"
  file.write_text('{"labels": {"background": 0, "pancreas": [3], "1": "spleen"}}')
  assert read_label_names(tmp_path) == {"background": 0, "pancreas": 3, "spleen": 1}
  file.write_text('{"labels": {"pancreas": 1.5}}')
  with pytest.raises(UserError, match=r"'pancreas' is 1\.5, not a whole number"):
    read_label_names(tmp_path)


@pytest.mark.parametrize(
  ("alone", "partners", "named"),
  [
    ({"a_0000", "b_0000"}, {"a", "b"}, "rename a_0000 to a,"),
    ({"b_0000", "z"}, {"b"}, "rename b_0000 to b,"),
    ({"a_0001"}, {"a"}, ""),
    ({"a_0000"}, {"b"}, ""),
    (set(), {"a"}, ""),
  ],
)
def test_names_that_differ_by_a_channel_are_explained(alone, partners, named):
  said = explain_channel_names(alone, partners)
  assert (named in said) if named else said == ""


def test_a_label_comes_on_its_images_axes_and_a_shift_is_told(tmp_path):
  values = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)
  write_nifti(tmp_path / "i.nii", Volume(values, np.diag([2.0, 2, 2, 1])))
  turned = np.diag([-2.0, 2, 2, 1])
  turned[0, 3] = 8.05
  write_nifti(tmp_path / "l.nii", Volume((values > 0).astype(np.uint8)[::-1], turned))
  image, label, note, _ = read_pair(tmp_path / "i.nii", tmp_path / "l.nii")
  np.testing.assert_array_equal(image.array, values)
  np.testing.assert_array_equal(label.array, values > 0)
  np.testing.assert_array_equal(label.affine, image.affine)
  assert "0.0500 mm apart" in note
  turned[0, 3] = 7
  write_nifti(tmp_path / "l.nii", Volume((values > 0).astype(np.uint8)[::-1], turned))
  with pytest.raises(UserError, match=r"l\.nii and its image .*i\.nii: voxels up to 1\.000 mm"):
    read_pair(tmp_path / "i.nii", tmp_path / "l.nii")


def test_swapped_folders_are_called_so(tmp_path):
  write_nifti(tmp_path / "image.nii", drawn_label())
  write_nifti(tmp_path / "label.nii", drawn_ct())
  with pytest.raises(
    UserError, match=r"image\.nii: holds labels, .*label\.nii an image: .*swapped"
  ):
    read_pair(tmp_path / "image.nii", tmp_path / "label.nii")
