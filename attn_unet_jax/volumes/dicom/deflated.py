"""Refuses deflated DICOM files that unpack to more than a scan can be."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import _read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error

MAX_UNPACKED_BYTES = 1 << 30
_META_START = 132  # after the preamble and `DICM`
_CHUNK_BYTES = 1 << 20


def check_deflated_size(file: Path, stream: BinaryIO) -> None:
  """Refuses a deflated DICOM file that unpacks to more than a scan can be.

  pydicom unpacks such a file at once and into memory, whatever its size.

  Raises:
    UserError: the file is too large, or damaged.
  """
  stream.seek(_META_START)
  with damage_is_user_error(file):
    # pydicom's own function, which does not trust the length in (0002,0000): whatever it takes for
    # deflated here, and where, is what it will unpack.
    syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
      _count_unpacked(file, stream)
  stream.seek(0)


def _count_unpacked(file: Path, stream: BinaryIO) -> None:
  # Negative: raw deflate, without zlib's header (DICOM PS3.5 A.5).
  unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
  packed = stream.read(_CHUNK_BYTES)
  while packed and not unpack.eof:
    # Never more than a chunk at a time, so a bomb does not fill the memory before it is counted.
    size += len(unpack.decompress(packed, _CHUNK_BYTES))
    packed = unpack.unconsumed_tail or stream.read(_CHUNK_BYTES)
    if size > MAX_UNPACKED_BYTES:
      raise UserError(
        f"{file}: unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB, which no scan does; "
        "do not trust this file"
      )
