"""Damaged NIfTI files are refused by name, or read as a volume that makes sense."""

import gzip
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_label, read_nifti, write_nifti
from tests.conftest import SHARED
from tests.damaged_files import damage_bytes

IMAGE = Volume((np.arange(960) % 900 - 400).reshape(12, 10, 8).astype(np.int16), np.eye(4))
LABEL = Volume((np.arange(960) % 3).reshape(12, 10, 8).astype(np.uint8), np.eye(4))
_HEADER_BYTES = 352

pytestmark = pytest.mark.slow


def write_damaged(path: Path, content: bytes, rng: np.random.Generator) -> None:
  """Damages the content of a file, or the compressed bytes of a .gz."""
  if path.suffix != ".gz":
    path.write_bytes(damage_bytes(content, rng, _HEADER_BYTES))
  elif rng.random() < 0.7:
    path.write_bytes(gzip.compress(damage_bytes(content, rng, _HEADER_BYTES), 1, mtime=0))
  else:
    packed = gzip.compress(content, 1, mtime=0)
    path.write_bytes(damage_bytes(packed, rng, len(packed)))


def read_image(path: Path) -> Volume:
  """Reads an image and judges its header, as every command does."""
  image = read_nifti(path)
  Judge().judge_grid(image.grid, path, path)
  return image


def read_damaged(path: Path, read) -> bool:
  """Reads a file; returns whether it was refused."""
  began = time.process_time()
  try:
    volume = read(path)
  except UserError as error:
    said = str(error)
    assert path.name in said
    assert said.isprintable()
    refused = True
  else:
    assert volume.array.ndim == 3
    assert np.isfinite(volume.affine).all()
    assert 0.001 < min(volume.spacing) <= max(volume.spacing) < 300
    refused = False
  assert time.process_time() - began < 20
  return refused


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("read", "volume"), [(read_image, IMAGE), (read_label, LABEL)])
def test_damaged_files(suffix, read, volume, tmp_path):
  write_nifti(tmp_path / "whole.nii", volume)
  content = (tmp_path / "whole.nii").read_bytes()
  path = tmp_path / f"damaged{suffix}"
  rng, before = np.random.default_rng(0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused = 0
  for _ in range(450):
    write_damaged(path, content, rng)
    refused += read_damaged(path, read)
  assert 100 < refused < 450  # some damage does not matter: that of a description
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
def test_a_damaged_real_scan(tmp_path):
  content = gzip.decompress((SHARED / "ct_nifti_3mm" / "ct.nii.gz").read_bytes())
  path, rng, refused = tmp_path / "damaged.nii", np.random.default_rng(0), 0
  for _ in range(1000):
    write_damaged(path, content, rng)
    refused += read_damaged(path, read_image)
  assert 200 < refused < 1000
