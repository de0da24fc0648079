import numpy as np
import pytest

from attn_unet_jax.inspection.label_map import count_values, shape_findings, value_findings
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.volumes import Volume
from tests.drawn_ct import AFFINE, ORGAN, SHAPE, drawn_label

PANCREAS = parse_mapping("pancreas=1", None)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_values_are_counted(dtype):
  array = np.random.default_rng(0).integers(0, 9, (6, 5, 4)).astype(dtype)
  if dtype != np.uint8:
    array[0, 0, 0] = -3
  expected = {int(value): int((array == value).sum()) for value in np.unique(array)}
  assert count_values(array) == expected
  assert list(count_values(array)) == sorted(expected)


@pytest.mark.parametrize(
  ("counts", "text", "severity", "words"),
  [
    ({0: 90, 1: 10}, "pancreas=1", None, []),
    ({0: 90, 255: 10}, "pancreas=1", "error", ["255 (10 voxels)", "'pancreas=255' takes it for"]),
    (
      {0: 90, 1: 4, 3: 6},
      "pancreas=1",
      "error",
      [
        "values 3 (6 voxels) mean",
        "'pancreas=1+3' takes it for",
        "'pancreas=1,background=3' takes",
      ],
    ),
    ({0: 90, 255: 10}, "pancreas=1,background=*", "error", ["no voxel of pancreas=1"]),
    ({0: 90}, "pancreas=1", "error", ["the scan has no organ"]),
    ({0: 90, 1: 4}, "spleen=1,pancreas=2", "note", ["no voxel of pancreas"]),
    (dict.fromkeys(range(2, 60), 1), "pancreas=1", "error", ["13 (1 voxels) and 46 more"]),
  ],
)
def test_values_outside_the_mapping_are_named_with_what_would_fix_them(
  counts, text, severity, words
):
  findings = list(value_findings(counts, parse_mapping(text, None), "a.nii"))
  assert [one.severity for one in findings] == ([severity] if severity else [])
  for word in words:
    assert word in findings[0].text


def test_unlabelled_values_are_known():
  mapping = parse_mapping("background=2,pancreas=1,unlabelled=0", None)
  assert list(value_findings({0: 9, 1: 1, 2: 5}, mapping, "a.nii")) == []
  (finding,) = value_findings({0: 9, 1: 1, 2: 5, 7: 1}, mapping, "a.nii")
  assert "'pancreas=1+7,unlabelled=0,background=2' takes" in finding.text


def test_names_of_the_data_make_values_known():
  mapping = parse_mapping("pancreas", {"pancreas": 2, "liver": 6})
  assert list(value_findings({0: 9, 2: 1, 6: 1}, mapping, "a.nii")) == []
  (finding,) = value_findings({0: 9, 2: 1, 7: 1}, mapping, "a.nii")
  assert "values 7 (1 voxels)" in finding.text


def find_shapes(array, organ="pancreas", affine=AFFINE):
  label = Volume(array, affine)
  return {one.kind: one for one in shape_findings(array == 1, label, organ, "a.nii")}


def test_an_organ_passes_in_silence():
  assert find_shapes(drawn_label().array) == {}


def test_a_speck_is_placed_in_mm():
  array = drawn_label().array.copy()
  array[30, 26, 9] = 1
  found = find_shapes(array)
  assert list(found) == ["specks"]
  assert found["specks"].severity == "warning"
  # The organ's last column is 17: 13 voxels of 8 mm; the place is the affine's of [30, 26, 9].
  assert "(1, of 1 voxels in all)" in found["specks"].text
  assert "farthest 104 mm away at (80, 48, -228) mm" in found["specks"].text


def test_near_or_large_parts_are_no_specks():
  array = drawn_label().array.copy()
  array[12, 29, 9] = 1
  near = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])  # two voxels of 4 mm away
  assert find_shapes(array, "gallbladder", near) == {}
  array = drawn_label().array.copy()
  array[30:36, 24:28, 8:12] = 1
  found = find_shapes(array)
  assert list(found) == ["parts"]
  assert found["parts"].severity == "note"
  assert "in 2 parts that do not touch, of 49.2, 49.2 ml" in found["parts"].text
  array[37, 26, 9] = 1  # 16 mm from the nearer part
  assert "the farthest 16 mm away" in find_shapes(array)["specks"].text


def test_the_border_and_the_volume():
  array = np.zeros(SHAPE, np.uint8)
  array[ORGAN[0], ORGAN[1], :4] = 1
  found = find_shapes(array)
  assert list(found) == ["border"]
  assert "touches the lower end (24 voxels)" in found["border"].text
  small = np.zeros(SHAPE, np.uint8)
  small[3:5, 3:5, 3:5] = 1
  found = find_shapes(small)
  assert "4.1 ml of pancreas, 10 to 300 are usual" in found["volume"].text
  assert find_shapes(small, organ="gallbladder") == {}
