"""Turns what pydicom raises on damaged files into a message that names the file."""

from __future__ import annotations

import contextlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from pydicom.errors import BytesLengthException, InvalidDicomError

from attn_unet_jax.runtime.errors import UserError

# pydicom's warnings quote the values that it does not like, whatever they tell of a patient.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

# What pydicom and its decoders raise on damaged files: nearly everything, since a wrong length or
# type may be met anywhere in them. A length of gigabytes in a small file ends in MemoryError.
_DAMAGE_ERRORS = (
  *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
  *(TypeError, ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
)


@contextlib.contextmanager
def damage_is_user_error(file: Path, what: str = "truncated or damaged") -> Iterator[None]:
  """Names the file when pydicom fails; its own words are dropped, since they may quote values."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  except _DAMAGE_ERRORS as error:
    raise UserError(f"{file}: {what}; copy, download or export the file again") from error
