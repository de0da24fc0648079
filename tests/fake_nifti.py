"""Small collections of NIfTI files, of the drawn cases of `fake_pancreas_ct`."""

import json
from pathlib import Path

import numpy as np

from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from benchmarks.orientations import on_axes
from tests.fake_pancreas_ct import PANCREAS, FakeCase


def draw_fake_case(number: int, values: tuple[int, ...]) -> FakeCase:
  """Draws a case whose organ is divided among some label values, voxel by voxel."""
  case = FakeCase(number)
  block = case.label[PANCREAS]
  places = np.indices(block.shape).sum(axis=0) % len(values)
  case.label[PANCREAS] = np.where(block > 0, np.array(values, np.uint8)[places], 0)
  return case


def write_image(path: Path, case: FakeCase, axes: str = "LAS") -> None:
  write_nifti(path, on_axes(Volume(case.image, case.affine), axes))


def write_label(path: Path, case: FakeCase, axes: str = "LAS", shift_mm: float = 0.0) -> None:
  affine = case.affine
  affine[2, 3] += shift_mm
  write_nifti(path, on_axes(Volume(case.label, affine), axes))


def write_dataset_json(folder: Path, names: dict[str, str], listed: tuple[str, ...] = ()) -> None:
  """Writes a dataset.json as the Decathlon has it."""
  training = [
    {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in listed
  ]
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "dataset.json").write_text(json.dumps({"labels": names, "training": training}))


def assert_record_holds(record: dict, case: FakeCase, label: np.ndarray) -> None:
  """Asserts that a record has the case's voxels, each in its place."""
  np.testing.assert_array_equal(record["image"], case.image)
  np.testing.assert_array_equal(record["label"], label)
  np.testing.assert_allclose(record["affine"], case.affine, atol=1e-4)
