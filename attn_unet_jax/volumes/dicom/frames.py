"""Multi-frame (Enhanced) CT: each frame with the elements that a file of one slice has.

There, position, orientation, spacing and scale lie in functional groups, each either shared by
all frames or given for every frame (DICOM PS3.3 C.7.6.16).
"""

from __future__ import annotations

import pydicom

_GROUP_TAGS = {
  "PlanePositionSequence": ("ImagePositionPatient",),
  "PlaneOrientationSequence": ("ImageOrientationPatient",),
  "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
  "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
_COMMON_TAGS = ("Rows", "Columns")
FRAME_TAGS = (
  "NumberOfFrames",
  "SharedFunctionalGroupsSequence",
  "PerFrameFunctionalGroupsSequence",
)


def is_multi_frame(tags: pydicom.Dataset) -> bool:
  """Whether a data set describes its frames by functional groups."""
  return "PerFrameFunctionalGroupsSequence" in tags


def split_frames(tags: pydicom.Dataset) -> list[pydicom.Dataset]:
  """One data set a frame, in the order of the pixels; of a single-frame file, itself.

  InstanceNumber is that of the frame, from 1.

  Raises:
    ValueError: other numbers of frames and of their descriptions.
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
    items = own.get(group) or shared.get(group) or [pydicom.Dataset()]
    for name in names:
      if name in items[0]:
        frame[name] = items[0][name]
  return frame
