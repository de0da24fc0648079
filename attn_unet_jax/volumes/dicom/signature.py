"""Tells DICOM from other files by the first bytes, or by the name."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# Groups that a data set can begin with: the meta information, and that of the SOP class.
_FIRST_GROUPS = (2, 8)
_MAX_FIRST_ELEMENT = 0x0020  # such as (0008,0005), the character set, and (0008,0016)
_MAX_FIRST_LENGTH = 256
_LONG_VRS = (b"OB", b"UN")  # those of them whose length takes four bytes, after two empty ones


def is_dicom(stream: BinaryIO) -> bool:
  """Returns whether a file begins as DICOM does: `DICM` after a preamble of 128 bytes."""
  stream.seek(0)
  head = stream.read(132)
  stream.seek(0)
  return head[128:] == b"DICM"


def is_bare_dicom(stream: BinaryIO) -> bool:
  """Returns whether a file begins with an element of DICOM instead of the preamble."""
  stream.seek(0)
  head = stream.read(2 * _MAX_FIRST_LENGTH)
  stream.seek(0)
  # `DICM` alone at the beginning: the preamble was cut off, the rest was not.
  return (
    head[:4] == b"DICM" or _begins_with_elements(head, True) or _begins_with_elements(head, False)
  )


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


def _begins_with_elements(head: bytes, is_little: bool) -> bool:
  """Returns whether a file begins with two elements of one group, in their order."""

  def number(start: int, size: int) -> int:
    """Reads a number of so many bytes; 0 beyond the end."""
    return int.from_bytes(head[start : start + size], "little" if is_little else "big")

  group, element, vr = number(0, 2), number(2, 2), head[4:6]
  if group not in _FIRST_GROUPS or element > _MAX_FIRST_ELEMENT:
    return False
  if vr in _LONG_VRS:
    start, length = 12, number(8, 4)
  elif vr.isalpha() and vr.isupper():
    start, length = 8, number(6, 2)
  else:  # implicit VR
    start, length = 8, number(4, 4)
  if length > _MAX_FIRST_LENGTH:
    return False
  following = start + length
  return number(following, 2) == group and number(following + 2, 2) > element
