"""Finds files among the slices of a series that are no DICOM and may be slices that were lost.

A README, a DICOMDIR or a picture beside the slices is harmless. A file that is called as the slices
are, and is empty, an error page or half a download, is a slice that is missing: at the end of a
series no gap would show it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from attn_unet_jax.volumes.dicom.signature import has_dicom_suffix

# What programs add to a name while they load or pack a file.
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp", ".gz", ".bz2", ".xz")
# Digits, with the hexadecimal ones and the points of UIDs about them.
_NUMBER = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")
_NUMBERS = re.compile(r"#([._-]?#)*")


def find_lost_slices(others: Iterable[Path], slices: Iterable[Path]) -> list[Path]:
  """Finds the files that are no DICOM and have names as the slices beside them have.

  Args:
    others: files that are no DICOM, and links that lead to nothing.
    slices: the files of all CT series.
  """
  shapes: defaultdict[Path, set[str]] = defaultdict(set)
  names: defaultdict[Path, set[str]] = defaultdict(set)
  for file in slices:
    shapes[file.parent].add(_strip_numbers(file.name))
    names[file.parent].add(file.name)
  # A folder may have lost all its slices. Names of digits alone would mean little there.
  everywhere = {shape for some in shapes.values() for shape in some} - {"#"}
  return [
    other
    for other in others
    if _is_lost(other.name, shapes.get(other.parent, set()) | everywhere, names[other.parent])
  ]


def _is_lost(name: str, shapes: set[str], names: set[str]) -> bool:
  path = Path(name)
  if path.suffix.lower() in _UNFINISHED and path.stem not in names:
    return _strip_numbers(path.stem) in shapes
  return _strip_numbers(name) in shapes


def _strip_numbers(name: str) -> str:
  """Returns what names of one series have in common: their text without numbers and suffix."""
  path = Path(name)
  text = (path.stem if has_dicom_suffix(path) else name).lower()
  return _NUMBERS.sub("#", _NUMBER.sub("#", text))
