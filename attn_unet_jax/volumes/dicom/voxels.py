"""Reads the pixels of slices whose places are known into one array in HU.

A file's pixels are compared with what its tags claim before memory is taken for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGExtended12Bit

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.files import open_files
from attn_unet_jax.volumes.dicom.frames import FRAME_TAGS, is_multi_frame, split_frames
from attn_unet_jax.volumes.dicom.geometry import SliceGeometry
from attn_unet_jax.volumes.dicom.padding import PADDING_TAGS, padding_mask
from attn_unet_jax.volumes.dicom.rescale import RESCALE_TAGS, read_rescale, to_stored_type

AIR_HU = -1000
_PIXEL_TAGS = [
  *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
  *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", *FRAME_TAGS),
  *(*RESCALE_TAGS, *PADDING_TAGS),
]
# The most that a byte of a file may unpack to. Deflate reaches 1032. The blank slice of the largest
# matrix that is reconstructed (4096 x 4096), with its tags, stays below this in JPEG 2000.
_MAX_RATIO = 20_000


def check_pixel_size(file: Path, stream: BinaryIO, tags: pydicom.Dataset) -> None:
  """Refuses a file that is too short for the pixels that its tags claim.

  Args:
    file: the file, for the message.
    stream: the file, of which the length is taken.
    tags: its tags, with Rows, Columns, BitsAllocated and NumberOfFrames.

  Raises:
    UserError: the file is too short, or a frame is larger than memory.
  """
  with damage_is_user_error(file):
    shape = int(tags.get("NumberOfFrames") or 1), int(tags.Rows), int(tags.Columns)
    claimed = math.prod(shape) * int(tags.get("BitsAllocated", 16)) // 8
    syntax = tags.file_meta.get("TransferSyntaxUID", "")
    is_packed = syntax == DeflatedExplicitVRLittleEndian or (
      bool(syntax) and pydicom.uid.UID(syntax).is_compressed
    )
    length = stream.seek(0, 2)
  if claimed > length * (_MAX_RATIO if is_packed else 1):
    sizes = " x ".join(map(str, shape))
    raise UserError(
      f"{file}: truncated or damaged, its {sizes} pixels (frames, rows, columns) take {claimed} "
      f"bytes and the file has {length}; copy or export it again"
    )


def read_voxels(slices: Sequence[SliceGeometry]) -> np.ndarray:
  """Reads the values in HU, [columns, rows, slices], each slice in one piece of memory.

  They are int16 if all are whole numbers in its range, else float32.

  Args:
    slices: the places of the slices, in their order.

  Raises:
    UserError: memory cannot hold them, or a file is damaged or stored in a way that is not read.
  """
  shape = (*slices[0].size, len(slices))
  memory.require_memory(
    math.prod(shape) * np.dtype(np.int16).itemsize,
    f"{slices[0].file.parent}: {' x '.join(map(str, shape))} voxels",
    "give a part of the series",
  )
  array: np.ndarray | None = None
  places: dict[Path, list[int]] = {}
  for k, one in enumerate(slices):
    places.setdefault(one.file, []).append(k)
  # File by file and not slice by slice: a multi-frame file holds many of them.
  for file, stream in open_files(places):
    tags, frames = _read_stored_frames(file, stream)
    for k in places[file]:
      part, stored = frames[slices[k].frame or 0]
      hu = _to_hounsfield(slices[k], tags, part, stored)
      # Only now, since the first pixels show that there are as many as the tags claim.
      array = np.empty(shape, hu.dtype, order="F") if array is None else array
      # One slice that int16 cannot hold makes all of them float32.
      array = array.astype(np.result_type(array, hu), copy=False)
      array[:, :, k] = hu.T
  assert array is not None
  return array


def _read_stored_frames(
  file: Path, stream: BinaryIO
) -> tuple[pydicom.Dataset, list[tuple[pydicom.Dataset, np.ndarray]]]:
  """Reads a file's tags, and the tags and the stored pixels [rows, columns] of every frame."""
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, specific_tags=list(_PIXEL_TAGS))
    _check_encoding(file, tags)
    parts = split_frames(tags)
  with damage_is_user_error(file, "its pixels are truncated or damaged"):
    pixels = tags.pixel_array.reshape(-1, int(tags.Rows), int(tags.Columns))
    return tags, list(zip(parts, pixels, strict=True))


def _to_hounsfield(
  place: SliceGeometry, tags: pydicom.Dataset, part: pydicom.Dataset, stored: np.ndarray
) -> np.ndarray:
  """Converts a slice to HU: int16, or float32 where int16 cannot hold it.

  Args:
    place: the slice.
    tags: the file's tags.
    part: the frame's own tags.
    stored: the pixels as stored [rows, columns].
  """
  with damage_is_user_error(place.file):
    rescale = read_rescale(place.file, place.frame, part)
    hu = rescale.to_hounsfield(stored)
    hu[padding_mask(place.file, tags, stored, rescale)] = AIR_HU
    return to_stored_type(hu, rescale)


def _check_encoding(file: Path, tags: pydicom.Dataset) -> None:
  """Refuses a file whose pixels are missing, are no grey slice, or cannot be decoded."""
  syntax = tags.file_meta.TransferSyntaxUID
  if "PixelData" not in tags:
    raise UserError(f"{file}: truncated or damaged, it has no pixels; copy or export it again")
  undescribed = int(tags.get("NumberOfFrames") or 1) != 1 and not is_multi_frame(tags)
  is_grey = str(tags.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
  if tags.get("SamplesPerPixel", 1) != 1 or not is_grey or undescribed:
    raise UserError(
      f"{file}: holds colours, or several frames without a place of their own; a CT slice is one "
      "grey image: convert it to one file for each slice, or to NIfTI"
    )
  stored, high = tags.get("BitsStored"), tags.get("HighBit")
  # No decoder looks at it: values that end in a higher bit would come out many times too large.
  if None not in (stored, high) and high != stored - 1:
    raise UserError(
      f"{file}: HighBit is {high}, and with BitsStored {stored} only {stored - 1} is read, as "
      "another one gives wrong HU; export it again"
    )
  try:
    readable = get_decoder(syntax).is_available
  except NotImplementedError:  # pydicom knows the syntax and has no decoder for it at all
    readable = False
  # pydicom says that it can decode lossy JPEG of 12 bits, but none of its decoders does.
  if not readable or (syntax == JPEGExtended12Bit and int(tags.get("BitsStored", 16)) > 8):
    raise UserError(
      f"{file}: stored as {syntax.name}, which is not read here; decompress it first "
      "(dcmdjpeg, gdcmconv --raw)"
    )
