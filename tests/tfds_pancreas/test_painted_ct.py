"""painted_ct from a folder of label maps to records."""

import json

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.orientation import from_canonical
from attn_unet_jax.volumes.volume import Grid, Volume
from tests.painted_maps import draw_partial_map
from tfds_pancreas.abdomen.organs import ALL_ORGANS, ORGANS
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.painted_ct.painted_ct_dataset_builder import Builder, make_config
from tfds_pancreas.painted_ct.painting import paint_map
from tfds_pancreas.records import find_built_version, open_records

TINY = "painted_ct/tiny"
NAMES = {"pancreas": ORGANS["pancreas"], "liver": ORGANS["liver"], "spleen": ORGANS["spleen"],
         "kidney left": ORGANS["kidney_left"], "stomach": ORGANS["stomach"],
         "gallbladder": ORGANS["gallbladder"], "duodenum": ORGANS["duodenum"]}  # fmt: skip
MAPS = {"a": 1, "b": 3, "c": 5}


def as_lps(volume):
  affine = volume.affine @ np.diag([-1.0, -1, 1, 1])
  affine[:3, 3] = volume.affine[:3, :3] @ (volume.shape[0] - 1, volume.shape[1] - 1, 0)
  affine[:3, 3] += volume.affine[:3, 3]
  return from_canonical(volume.array, Grid(volume.shape, affine))


def write_maps(folder, maps):
  folder.mkdir()
  (folder / "labels.json").write_text(json.dumps(NAMES))
  for name, number in maps.items():
    write_nifti(folder / f"{name}.nii.gz", as_lps(draw_partial_map(number)))
  return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  root = tmp_path_factory.mktemp("painted")
  build_dataset(TINY, root / "data", manual_dir=write_maps(root / "maps", MAPS), workers=1)
  return root / "data"


def test_paintings_pass_in_silence(built):
  for cases in open_records(TINY, built).splits.values():
    for record in cases:
      assert Judge().judge_scan(Volume(record["image"], record["affine"]), record["id"]) == []


def test_no_anatomy_is_in_two_splits(built):
  splits = open_records(TINY, built).splits
  maps = {
    split: {case.rpartition("_")[0] for case in cases.case_ids} for split, cases in splits.items()
  }
  assert {split: len(cases) for split, cases in splits.items()} == {
    "train": 2,
    "validation": 1,
    "test": 1,
  }
  assert sorted(name for names in maps.values() for name in names) == sorted(MAPS)


def test_a_record_is_the_painting_of_its_map(built):
  records = open_records(TINY, built)
  assert records.labels == ALL_ORGANS
  record = records.splits["train"][1]
  name, _, number = record["id"].rpartition("_")
  recipe = Builder.builder_configs["tiny"].recipe
  source = draw_partial_map(MAPS[name])
  used = np.argwhere(source.array > 0)
  low, high = used.min(0), used.max(0) + 1
  affine = source.affine.copy()
  affine[:3, 3] += affine[:3, :2] @ low[:2]
  cut = Volume(source.array[low[0] : high[0], low[1] : high[1]], affine)
  image, label = paint_map(cut, name, int(number), recipe)
  np.testing.assert_array_equal(record["image"], image.array)
  np.testing.assert_array_equal(record["label"], label.array)
  np.testing.assert_allclose(record["affine"], image.affine, atol=1e-4)  # files hold float32


def test_the_report_says_what_was_painted(built):
  folder = find_built_version(TINY, built)
  report = json.loads((folder / "build_report.json").read_text())
  assert report["contact_sheets"] == ["contact_sheet_1.png"]
  assert (folder / "contact_sheet_1.png").stat().st_size > 1000
  for case, figures in report["built"].items():
    assert case == f"{figures['map']}_{figures['painting']:02d}"
    assert 30 < figures["pancreas_ml"] < 200
    assert -60 < figures["pancreas_mean_hu"] < 185


def test_bad_maps_are_named_in_one_line_and_may_be_skipped(tmp_path):
  maps = write_maps(tmp_path / "maps", MAPS)
  without = np.where(draw_partial_map(2).array == ORGANS["pancreas"], 0, draw_partial_map(2).array)
  write_nifti(maps / "d.nii.gz", Volume(without, draw_partial_map(2).affine))
  strange = np.where(draw_partial_map(4).array == ORGANS["liver"], 99, draw_partial_map(4).array)
  write_nifti(maps / "e.nii.gz", Volume(strange.astype(np.uint8), draw_partial_map(4).affine))
  with pytest.raises(UserError, match=r"2 of 5 .*d.nii.gz: 0.0 ml .*e.nii.gz: .*\[99\]") as error:
    build_dataset(TINY, tmp_path / "data", manual_dir=maps, workers=1)
  assert "\n" not in str(error.value)
  assert find_built_version(TINY, tmp_path / "data") is None
  folder = build_dataset(TINY, tmp_path / "data", manual_dir=maps, skip_bad_cases=True, workers=1)
  report = json.loads((folder / "build_report.json").read_text())
  assert list(report["excluded"]) == ["d", "e"]
  assert {figures["map"] for figures in report["built"].values()} == set(MAPS)


def test_two_maps_are_too_few(tmp_path):
  maps = write_maps(tmp_path / "maps", {"a": 1, "b": 3})
  with pytest.raises(UserError, match="2 label maps"):
    build_dataset(TINY, tmp_path / "data", manual_dir=maps)


def test_a_folder_without_names_says_how(tmp_path):
  maps = write_maps(tmp_path / "maps", MAPS)
  (maps / "labels.json").unlink()
  with pytest.raises(UserError, match=r"maps/labels.json with .*gibson8"):
    build_dataset(TINY, tmp_path / "data", manual_dir=maps)


def test_configs_name_their_voxels():
  assert make_config("native").recipe.pixel_mm is None
  assert make_config("iso1.5mm").recipe.slice_mm == (1.5, 1.5)
  assert make_config("iso2mm").spacing_mm is None  # painted at 2 mm, not resampled to it
  with pytest.raises(ValueError, match="grid"):
    make_config("large")
