"""Splits multi-frame (Enhanced) CT into frames with the elements of a file of one slice.

In such a file position, orientation, spacing and scale lie in functional groups. Each group is
either shared by all frames or given for every frame (DICOM PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Iterable

import pydicom

from attn_unet_jax.volumes.dicom.rescale import RESCALE_TAGS

# The functional groups that say where a frame lies.
_GROUP_TAGS = {
  "PlanePositionSequence": ("ImagePositionPatient",),
  "PlaneOrientationSequence": ("ImageOrientationPatient",),
  "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
}
_COMMON_TAGS = ("Rows", "Columns")
FRAME_TAGS = (
  "NumberOfFrames",
  "SharedFunctionalGroupsSequence",
  "PerFrameFunctionalGroupsSequence",
)


def is_multi_frame(tags: pydicom.Dataset) -> bool:
  """Returns whether a data set describes its frames by functional groups."""
  return "PerFrameFunctionalGroupsSequence" in tags


def split_frames(tags: pydicom.Dataset) -> list[pydicom.Dataset]:
  """Splits a data set into one for each frame, in the order of the pixels.

  InstanceNumber becomes the number of the frame, from 1. PixelValueTransformationSequence becomes
  every place that gives the frame slope and intercept: its own group, the shared one, and the root
  of the file, where some programs write them. A file of a single frame is returned as it is.

  Raises:
    ValueError: there are not as many descriptions as frames.
  """
  if not is_multi_frame(tags):
    return [tags]
  groups = tags.PerFrameFunctionalGroupsSequence
  if len(groups) != int(tags.get("NumberOfFrames") or 1):
    raise ValueError(f"{len(groups)} descriptions of {tags.get('NumberOfFrames')} frames")
  shared = tags.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
  return [
    _build_frame(number, tags, group, shared[0]) for number, group in enumerate(groups, start=1)
  ]


def _build_frame(
  number: int, tags: pydicom.Dataset, own: pydicom.Dataset, shared: pydicom.Dataset
) -> pydicom.Dataset:
  frame = pydicom.Dataset()
  frame.InstanceNumber = number
  for name in _COMMON_TAGS:
    frame[name] = tags[name]
  for group, names in _GROUP_TAGS.items():
    # The standard allows each group in one of the two places. The frame's own one is the nearer.
    items = own.get(group) or shared.get(group) or [pydicom.Dataset()]
    for name in names:
      if name in items[0]:
        frame[name] = items[0][name]
  # All of them, and not the nearest alone, so that a contradiction between them is seen.
  frame.PixelValueTransformationSequence = [
    *(own.get("PixelValueTransformationSequence") or ()),
    *(shared.get("PixelValueTransformationSequence") or ()),
    *([_copy_tags(tags, RESCALE_TAGS)] if any(name in tags for name in RESCALE_TAGS) else ()),
  ]
  return frame


def _copy_tags(tags: pydicom.Dataset, names: Iterable[str]) -> pydicom.Dataset:
  copy = pydicom.Dataset()
  for name in names:
    if name in tags:
      copy[name] = tags[name]
  return copy
