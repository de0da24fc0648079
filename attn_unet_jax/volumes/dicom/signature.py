"""Tells DICOM from other files by the first bytes, or by the name."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# Groups that a data set can begin with: the meta information, and that of the SOP class.
_FIRST_GROUPS = (2, 8)
_MAX_FIRST_ELEMENT = 0x0020  # such as (0008,0005), the character set, and (0008,0016)
_MAX_FIRST_LENGTH = 256


def is_dicom(stream: BinaryIO) -> bool:
  """Returns whether a file begins as DICOM does: `DICM` after a preamble of 128 bytes."""
  stream.seek(0)
  head = stream.read(132)
  stream.seek(0)
  return head[128:] == b"DICM"


def is_bare_dicom(stream: BinaryIO) -> bool:
  """Returns whether a file begins with an element of DICOM instead of the preamble."""
  stream.seek(0)
  head = stream.read(8)
  stream.seek(0)
  # `DICM` alone at the beginning: the preamble was cut off, the rest was not.
  return head[:4] == b"DICM" or any(_is_element(head, order) for order in ("little", "big"))


def has_dicom_suffix(file: Path) -> bool:
  """Returns whether a file's name says that it is DICOM."""
  return file.suffix.lower() in _DICOM_SUFFIXES


def describe_foreign(stream: BinaryIO) -> str:
  """Describes the content of a file that should be DICOM and is not."""
  stream.seek(0)
  head = stream.read(512).lstrip().lower()
  stream.seek(0)
  if not head:
    return "empty"
  if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
    return "a page or message, as a failed download leaves it"
  return "truncated or another format"


def _is_element(head: bytes, order: str) -> bool:
  """Returns whether 8 bytes are the tag and length of the first element of a data set."""
  if len(head) < 8:
    return False
  little = order == "little"
  group, element = (_to_number(head[at : at + 2], little) for at in (0, 2))
  if group not in _FIRST_GROUPS or element > _MAX_FIRST_ELEMENT:
    return False
  is_explicit = head[4:6].isalpha() and head[4:6].isupper()
  return is_explicit or 0 < _to_number(head[4:8], little) <= _MAX_FIRST_LENGTH


def _to_number(data: bytes, little: bool) -> int:
  return int.from_bytes(data, "little" if little else "big")
