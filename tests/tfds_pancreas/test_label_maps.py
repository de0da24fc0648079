"""Names, splits and reading of label maps."""

import json

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.painted_ct.label_maps import find_maps, read_map, split_maps
from tfds_pancreas.painted_ct.organ_names import PACKAGED, find_organ, read_organs_of_values

ORGANS = ((0, "background"), (1, "liver"), (7, "pancreas"))
AFFINE = np.diag([-8.0, -8.0, 8.0, 1.0])  # LPS


def read_names_from(folder, names):
  (folder / "labels.json").write_text(json.dumps(names))
  return read_organs_of_values(folder)


@pytest.mark.parametrize(
  "names",
  [
    {"1": "Liver", "7": "pancreas"},
    {"Liver": 1, "pancreas": 7},
    {"labels": {"0": "background", "1": "Liver", "7": "pancreas"}, "name": "Task"},
  ],
)
def test_names_are_read_in_every_common_form(tmp_path, names):
  assert read_names_from(tmp_path, names) == dict(ORGANS)


def test_a_dataset_json_does_as_well(tmp_path):
  (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "pancreas"}}))
  assert read_organs_of_values(tmp_path) == {0: "background", 1: "pancreas"}


@pytest.mark.parametrize(
  ("name", "count"), [("gibson8", 8), ("amos22", 15), ("totalsegmentator104", 104)]
)
def test_lists_that_come_along_name_organs_only(tmp_path, name, count):
  organs = read_names_from(tmp_path, {"labels": name})
  assert sorted(organs) == list(range(count + 1))
  assert set(organs.values()) <= set(ALL_ORGANS)
  listed = json.loads((PACKAGED / f"{name}.json").read_text())
  assert all(organs[int(value)] == find_organ(called) for value, called in listed.items())


def test_names_mean_organs():
  means = {"Oesophagus": "esophagus", "left kidney": "kidney_left", "urinary_bladder":
           "urinary_bladder", "gallbladder": "gallbladder", "vertebrae_L1": "bone",
           "rib_left_1": "bone", "iliac_vena_left": "vein", "inferior_vena_cava": "vena_cava",
           "portal_vein_and_splenic_vein": "portal_splenic_vein", "pulmonary_artery": "artery",
           "adrenal_gland": "adrenal", "heart_atrium_left": "heart", "gizmo": None}  # fmt: skip
  assert {name: find_organ(name) for name in means} == means


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (None, r"write .*labels.json .*gibson8"),
    ('{"1": "gizmo", "2": "pancreas"}', "value 1 is called 'gizmo'"),
    ('{"1": "liver"}', "no value is called pancreas"),
    ('{"labels": "nobody9"}', "labels.json: no list of names is called 'nobody9'"),
    ('{"liver": 1, "pancreas": 1}', "two names"),
    ("{", "labels.json: not readable"),
  ],
)
def test_bad_names_are_one_line_with_the_file(tmp_path, content, said):
  if content is not None:
    (tmp_path / "labels.json").write_text(content)
  with pytest.raises(UserError, match=said) as error:
    read_organs_of_values(tmp_path)
  assert "\n" not in str(error.value)


def a_map(value=7):
  array = np.zeros((12, 10, 6), np.uint8)
  array[2:9, 3:8, 1:5] = 1
  array[4:6, 4:7, 2:4] = value
  return array


def test_a_map_is_read_as_organs_on_canonical_axes_and_cut_to_its_columns(tmp_path):
  path = tmp_path / "a.nii.gz"
  write_nifti(path, Volume(a_map(), AFFINE))
  read = read_map(path, ORGANS)
  assert read.shape == (7, 5, 6)
  assert read.orientation == "RAS"
  turned = a_map()[2:9, 3:8][::-1, ::-1]
  np.testing.assert_array_equal(read.array == ALL_ORGANS["pancreas"], turned == 7)
  np.testing.assert_array_equal(read.array == ALL_ORGANS["liver"], turned == 1)
  # Voxel (8, 7, 0) of the file is the first that is left on turned axes.
  np.testing.assert_allclose(read.affine[:3, 3], (AFFINE @ (8, 7, 0, 1))[:3])


@pytest.mark.parametrize(("value", "said"), [(9, r"values \[9\] have no name"), (1, "0.0 ml of")])
def test_a_map_that_cannot_be_painted_is_named(tmp_path, value, said):
  path = tmp_path / "bad.nii.gz"
  write_nifti(path, Volume(a_map(value), AFFINE))
  with pytest.raises(UserError, match=f"bad.nii.gz: .*{said}"):
    read_map(path, ORGANS)


def test_a_map_whose_values_are_named_by_another_list_is_refused(tmp_path):
  path = tmp_path / "shifted.nii.gz"
  array = a_map()
  array[2:4, 3:5, 1:3] = 5
  # Its file's axes point to the left and to the back: 5 lies to the right of 1.
  write_nifti(path, Volume(array, AFFINE))
  right = ((0, "background"), (1, "stomach"), (5, "liver"), (7, "pancreas"))
  assert read_map(path, right).shape == (7, 5, 6)
  wrong = ((0, "background"), (1, "liver"), (5, "stomach"), (7, "pancreas"))
  with pytest.raises(
    UserError, match=r"shifted.nii.gz: liver \d+ mm to the left of stomach; it is"
  ):
    read_map(path, wrong)


def test_maps_are_found_by_their_names(tmp_path):
  for name in ("b.nii.gz", "a.nii", ".hidden.nii"):
    (tmp_path / name).write_text("")
  (tmp_path / "labels.json").write_text('{"7": "pancreas"}')
  assert list(find_maps(tmp_path)) == ["a", "b"]
  (tmp_path / "a.nii.gz").write_text("")
  with pytest.raises(UserError, match="the same name"):
    find_maps(tmp_path)


def test_folders_of_several_sets_each_name_their_own_values(tmp_path):
  for folder, name, value in (("amos", "x", 10), ("own", "y", 2)):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.nii.gz").write_text("")
    (tmp_path / folder / "labels.json").write_text(f'{{"{value}": "pancreas"}}')
  (tmp_path / "no_maps").mkdir()
  found = find_maps(tmp_path)
  assert {name: (file.path.parent.name, dict(file.organs)) for name, file in found.items()} == {
    "x": ("amos", {0: "background", 10: "pancreas"}),
    "y": ("own", {0: "background", 2: "pancreas"}),
  }
  (tmp_path / "own" / "x.nii.gz").write_text("")
  with pytest.raises(UserError, match=r"own/x.nii.gz: .*amos/x.nii.gz has the same name"):
    find_maps(tmp_path)


def test_no_maps_is_one_line(tmp_path):
  with pytest.raises(UserError, match="no label map"):
    find_maps(tmp_path)


@pytest.mark.parametrize("count", [3, 4, 12, 40])
def test_no_anatomy_is_on_two_sides(count):
  ids = [f"case{number}" for number in range(count)]
  parts = split_maps(ids)
  assert sorted(case for part in parts.values() for case in part) == sorted(ids)
  assert all(parts.values())
  assert split_maps(ids[::-1]) == parts
  if count == 12:
    assert [len(parts[split]) for split in ("train", "validation", "test")] == [7, 2, 3]


def test_two_maps_are_too_few():
  with pytest.raises(UserError, match="2 label maps"):
    split_maps(["a", "b"])
