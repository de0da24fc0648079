"""Finds slices that dropped out of their series because a tag is damaged, or got into another one.

A slice whose Modality or SOP class is damaged looks like another kind of file, and one whose
SeriesInstanceUID is damaged like a series of its own. Left out in silence, a slice at the end of a
scan would be missing without a gap. Scans of two studies, or in two frames of reference, that were
given one SeriesInstanceUID, as by an anonymiser that has one for all, would be read as one.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.volumes.dicom.header import FileHeader, SlicePlace

# A place that is nearer to a slice than this is that slice's.
_SAME_PLACE_MM = 0.01
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_GROUPS = Mapping[tuple[str, Path | None], Sequence[FileHeader]]


def find_outsiders(groups: _GROUPS, others: Iterable[FileHeader]) -> dict[Path, str]:
  """Finds the files that belong to a CT series and do not say so.

  Args:
    groups: (SeriesInstanceUID, folder if there is none) -> the images of a CT series.
    others: the files that are no images of a CT series.

  Returns:
    file -> one line that says what is wrong.
  """
  return {
    **_find_other_kinds(groups, others),
    **_find_lone_slices(groups),
    **_find_second_scans(groups),
  }


def _find_other_kinds(groups: _GROUPS, others: Iterable[FileHeader]) -> dict[Path, str]:
  """Finds files that are among CT images and claim to be something that cannot be."""
  sizes = {uid: len(members) for (uid, _), members in groups.items() if uid}
  folders = {
    one.file.parent for (uid, _), members in groups.items() for one in members if _is_uid(uid)
  }
  found = {}
  for one in others:
    # A report or a capture of the screen may share the series.
    if one.is_companion:
      continue
    if one.series_uid in sizes:
      why = f"in one series with {sizes[one.series_uid]} CT images"
    elif one.file.parent not in folders:
      continue
    elif one.is_ct_class:
      why = "its SOP class is that of the CT images beside it"
    elif not _is_uid(one.series_uid):
      why = "without a SeriesInstanceUID, which the CT images beside it have"
    else:
      continue
    found[one.file] = (
      f"{one.file}: {one.kind}, but {why}, so its tags are damaged; copy or export it again, or "
      "take it out of the folder"
    )
  return found


def _is_uid(text: str) -> bool:
  return bool(_UID.fullmatch(text))


def _find_lone_slices(groups: _GROUPS) -> dict[Path, str]:
  """Finds images that are alone in their series, or in none, and fit into another one."""
  stacks = [members for (uid, _), members in groups.items() if uid and len(members) > 1]
  found: dict[Path, str] = {}
  for (uid, _), members in groups.items():
    if uid and sum(one.num_slices for one in members) > 1:
      continue
    # A single image without a series may have lost its study with it: neither speaks for itself.
    states_study = bool(uid) or len(members) > 1
    for stack in stacks:
      if all(_continues_stack(one, stack, states_study) for one in members):
        found |= {
          one.file: (
            f"{one.file}: {'alone in its series' if uid else 'without a series'}, but at a free "
            f"place among the slices of {stack[0].file}: its SeriesInstanceUID is damaged; copy or "
            "export it again, or take it out of the folder"
          )
          for one in members
        }
  return found


def _find_second_scans(groups: _GROUPS) -> dict[Path, str]:
  """Finds images that share their series with images of another study or frame of reference."""
  found: dict[Path, str] = {}
  for (uid, _), members in groups.items():
    for words, read in _COMMON_UIDS.items():
      first, *others = _list_stated(members, read) or [""]
      if not uid or not others:
        continue
      file = next(one.file for one in members if read(one) == first)
      found |= {
        one.file: (
          f"{one.file}: {words} than {file}, and of one SeriesInstanceUID with it: these are "
          "several scans; put each into a folder of its own, and name one"
        )
        for one in members
        if read(one) in others
      }
  return found


# What all images of a scan have in common; positions in two frames of reference have nothing to do
# with each other (DICOM PS3.3 C.7.4.1).
_COMMON_UIDS: dict[str, Callable[[FileHeader], str]] = {
  "in another frame of reference": lambda one: one.frame_uid,
  "of another study": lambda one: one.study_uid,
}


def list_scan_uids(images: Sequence[FileHeader]) -> list[set[str]]:
  """Lists the frames of reference that several slices state, and the studies."""
  return [set(_list_stated(images, read)) for read in _COMMON_UIDS.values()]


def _list_stated(images: Iterable[FileHeader], read: Callable[[FileHeader], str]) -> list[str]:
  """Lists the UIDs that several slices state; that of one slice alone may be damaged."""
  sizes = collections.Counter[str]()
  for one in images:
    sizes[read(one)] += one.num_slices
  return [uid for uid, size in sizes.items() if _is_uid(uid) and size > 1]


def _continues_stack(one: FileHeader, stack: Sequence[FileHeader], states_study: bool) -> bool:
  """Returns whether an image continues a stack: one study, number, size and axis, a free place.

  What the image does not state does not speak against it.

  Args:
    one: the image.
    stack: images of a series.
    states_study: whether the image's study counts.
  """
  first = stack[0]
  if one.size != first.size or one.num_slices > 1:
    return False
  if states_study and _is_uid(one.study_uid) and one.study_uid != first.study_uid:
    return False
  if one.series_number is not None and one.series_number != first.series_number:
    return False
  places = [other.place for other in stack if other.place is not None]
  if one.place is None or not places:
    return bool(places)
  return _is_in_line(one.place, places)


def _is_in_line(one: SlicePlace, places: Sequence[SlicePlace]) -> bool:
  """Returns whether a place lies in line with those of a stack, and is none of them.

  A tilted gantry stacks slices sideways of their normal.
  """
  first = places[0]
  if not np.allclose(one.axes, first.axes, atol=1e-3):
    return False
  if not np.allclose(one.spacing, first.spacing):
    return False
  normal = np.cross(*one.axes)
  positions = np.array([place.position for place in places])
  along = (positions - one.position) @ normal
  low, high = positions[along.argmin()], positions[along.argmax()]
  length = float((high - low) @ normal)
  # The way from slice to slice for each mm along the normal.
  line = (high - low) / length if length > _SAME_PLACE_MM else normal
  step = one.position - low
  sideways = float(np.linalg.norm(step - (step @ normal) * line))
  return bool(sideways < one.spacing.min() / 2 and np.abs(along).min() > _SAME_PLACE_MM)
