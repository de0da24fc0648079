"""Finds the pixels that a scanner did not measure, such as the corners outside its round field."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom

from attn_unet_jax.volumes.dicom.rescale import SliceRescale

PADDING_TAGS = ("PixelPaddingValue", "PixelPaddingRangeLimit")
# Padding within this range, such as 0 HU, does not mark anything: tissue has that value as well.
_TISSUE_HU = (-900, 1000)


def padding_mask(
  file: Path, tags: pydicom.Dataset, stored: np.ndarray, rescale: SliceRescale
) -> np.ndarray:
  """Returns a mask [rows, columns] of the pixels that the scanner never measured.

  Args:
    file: the file, for the log.
    tags: the file's tags.
    stored: the pixels as stored [rows, columns].
    rescale: what turns them into HU.
  """
  # Both tags are in stored values, before slope and intercept (DICOM PS3.3 C.7.5.1.1.2). The limit
  # may lie on either side of the value.
  value, limit = (_read_stored_value(tags, name) for name in PADDING_TAGS)
  if value is None:
    return np.zeros(stored.shape, bool)
  low, high = sorted((value, value if limit is None else limit))
  hu_low, hu_high = sorted(rescale.to_hounsfield(np.array([low, high])).tolist())
  if hu_low < _TISSUE_HU[1] and hu_high > _TISSUE_HU[0]:
    logging.info("%s: padding of %g..%g HU may be tissue, left as it is", file, hu_low, hu_high)
    return np.zeros(stored.shape, bool)
  return (stored >= low) & (stored <= high)


def _read_stored_value(tags: pydicom.Dataset, name: str) -> int | None:
  """Reads a number that has the bits of a pixel, whatever sign its own type has."""
  value = tags.get(name)
  if value is None or value == "":
    return None
  # Many writers give a negative number the unsigned type, and the other way round.
  bits = int(value) % (1 << int(tags.get("BitsAllocated", 16)))
  if not tags.get("PixelRepresentation"):
    return bits
  for size in (int(tags.get("BitsStored", 16)), int(tags.get("BitsAllocated", 16))):
    if 1 << (size - 1) <= bits < 1 << size:
      return bits - (1 << size)
  return bits
