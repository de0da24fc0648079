"""Finds slices that dropped out of their series because a tag of theirs is damaged.

A slice whose Modality or SOP class is damaged looks like another kind of file, and one whose
SeriesInstanceUID is damaged like a series of its own. Left out in silence, a slice at the end of a
scan would be missing without a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.volumes.dicom.header import FileHeader

# A place that is nearer to a slice than this is that slice's.
_SAME_PLACE_MM = 0.01
_GROUPS = Mapping[tuple[str, Path | None], Sequence[FileHeader]]


def find_outsiders(groups: _GROUPS, others: Iterable[FileHeader]) -> dict[Path, str]:
  """Finds the files that belong to a CT series and do not say so.

  Args:
    groups: (SeriesInstanceUID, folder if there is none) -> the images of a CT series.
    others: the files that are no images of a CT series.

  Returns:
    file -> one line that says what is wrong.
  """
  return {**_find_other_kinds(groups, others), **_find_lone_slices(groups)}


def _find_other_kinds(groups: _GROUPS, others: Iterable[FileHeader]) -> dict[Path, str]:
  """Finds files that share the UID of a CT series and claim to be something that cannot."""
  sizes = {uid: len(members) for (uid, _), members in groups.items() if uid}
  return {
    one.file: (
      f"{one.file}: {one.kind}, but in one series with {sizes[one.series_uid]} CT images, so its "
      "Modality or SOP class is damaged; copy or export it again, or take it out of the folder"
    )
    for one in others
    if one.series_uid in sizes and not one.is_companion
  }


def _find_lone_slices(groups: _GROUPS) -> dict[Path, str]:
  """Finds images that are alone in their series, or in none, and fit into another one."""
  stacks = [members for (uid, _), members in groups.items() if uid and len(members) > 1]
  found: dict[Path, str] = {}
  for (uid, _), members in groups.items():
    if uid and len(members) > 1:
      continue
    for stack in stacks:
      if all(_fits(one, stack) for one in members):
        found |= {
          one.file: (
            f"{one.file}: {'alone in its series' if uid else 'without a series'}, but at a free "
            f"place among the slices of {stack[0].file}: its SeriesInstanceUID is damaged; copy or "
            "export it again, or take it out of the folder"
          )
          for one in members
        }
  return found


def _fits(one: FileHeader, stack: Sequence[FileHeader]) -> bool:
  """Returns whether an image continues a stack: one study, number, size and axis, a free place."""
  first = stack[0]
  if (one.study_uid, one.series_number, one.size) != (
    first.study_uid,
    first.series_number,
    first.size,
  ):
    return False
  if one.place is None or first.place is None:
    return False
  if not np.allclose(one.place.axes, first.place.axes, atol=1e-3):
    return False
  if not np.allclose(one.place.spacing, first.place.spacing):
    return False
  normal = np.cross(*one.place.axes)
  places = [other.place.position for other in stack if other.place is not None]
  steps = one.place.position - np.array(places)
  along = steps @ normal
  sideways = float(np.linalg.norm(steps[0] - along[0] * normal))
  return bool(sideways < one.place.spacing.min() / 2 and np.abs(along).min() > _SAME_PLACE_MM)
