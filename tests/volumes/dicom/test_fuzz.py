"""Damaged series are refused by name, or read whole: no traceback, no slice dropped in silence."""

import resource
import time
from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from tests.conftest import SHARED
from tests.damaged_files import damage_bytes
from tests.written_dicom import assert_anonymous, enhanced, slices_of, write

SCAN = Volume(
  (np.arange(576) % 900).reshape(16, 12, 3).astype(np.int16), np.diag([-0.8, -0.7, 2, 1])
)
_PREAMBLE_BYTES, _HEADER_BYTES = 128, 1900


def make_plain() -> list[Dataset]:
  return slices_of(SCAN)


def make_deflated() -> list[Dataset]:
  slices = slices_of(SCAN)
  for one in slices:
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
  return slices


def make_packed() -> list[Dataset]:
  slices = slices_of(SCAN, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, RescaleType="HU")
  for one in slices:
    one.compress(RLELossless)
  return slices


def read_damaged(folder, files: dict[str, bytes], rng: np.random.Generator) -> bool:
  """Damages one file, and reads the series; returns whether it was refused."""
  folder.mkdir(exist_ok=True)
  victim = sorted(files)[int(rng.integers(len(files)))]
  for name, data in files.items():
    if name == victim:
      data = damage_bytes(data, rng, _HEADER_BYTES, first=_PREAMBLE_BYTES)
    (folder / name).write_bytes(data)
  began, refusal = time.process_time(), ""
  try:
    assert read_dicom(folder).volume.shape[2] == 3
  except UserError as error:
    refusal = str(error)
  assert "\n" not in refusal
  assert_anonymous(refusal)
  assert time.process_time() - began < 20
  return bool(refusal)


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_plain, make_deflated, make_packed, lambda: [enhanced(SCAN)]])
def test_damaged_series(make: Callable[[], list[Dataset]], tmp_path):
  whole = make()
  for k, one in enumerate(whole):  # the same bytes in every run, or the damage is never seen again
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
  files = {path.name: path.read_bytes() for path in write(tmp_path / "whole", whole)}
  rng, before = np.random.default_rng(0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused = sum(read_damaged(tmp_path / "damaged", files, rng) for _ in range(450))
  assert 200 < refused < 450  # some damage does not matter: that of an InstanceNumber
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
def test_a_damaged_real_series(tmp_path):
  series = SHARED / "ct_dicom_3slice" / "series"
  files = {path.name: path.read_bytes() for path in series.iterdir()}
  rng = np.random.default_rng(0)
  refused = sum(read_damaged(tmp_path / "damaged", files, rng) for _ in range(1000))
  assert 200 < refused < 1000
