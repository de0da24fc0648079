"""Boxes that restrict a run to a part of each scan.

They are a JSON file, `{"CASE": [[x, y, z], [x, y, z]], ...}`, with the lowest and the highest
corner in mm from the middle of the scan's field of view, along right, anterior and superior. In mm,
one file serves every working spacing.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json
from attn_unet_jax.volumes.box import Box, Shape, Slices, box_from_corners
from attn_unet_jax.volumes.volume import Grid

Boxes = Mapping[str, Box]
_FARTHEST_MM = 1e6  # a corner beyond any scan; so large a number is a mistake, and may overflow


def read_boxes(path: Path) -> dict[str, Box]:
  """Reads the boxes of a JSON file.

  Raises:
    UserError: the file is missing or malformed.
  """
  try:
    content = read_json(path)
    corners = {case: np.array(box, np.float64) for case, box in content.items()}
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; write a file with a box for each case") from None
  except (ValueError, TypeError, AttributeError, OverflowError):
    corners = {"": np.zeros(0)}  # fits no box, so the loop below reports the file as a whole
  for case, box in corners.items():
    # So written, NaN does not fit either.
    fits = box.shape == (2, 3) and (box[0] < box[1]).all() and (np.abs(box) <= _FARTHEST_MM).all()
    if not fits:
      raise UserError(
        f"{path}: {case or 'it'} is not a box; write"
        ' {"CASE": [[x, y, z], [x, y, z]]}, lowest and highest corner in mm from the scan\'s'
        f" middle, at most {_FARTHEST_MM:g}"
      )
  return {case: box_from_corners(*box) for case, box in corners.items()}


def to_json(boxes: Boxes) -> str:
  """Formats boxes as the JSON text that `read_boxes` reads."""
  # A line for each case, so that people can edit the file and compare two of them.
  lines = [f" {json.dumps(case)}: {json.dumps([box.low, box.high])}" for case, box in boxes.items()]
  return "{\n" + ",\n".join(lines) + "\n}\n"


def check_boxes(boxes: Boxes, ids: Iterable[str], path: object) -> None:
  """Checks that every case has a box.

  Raises:
    UserError: a case has none; the message names the first.
  """
  if missing := sorted(set(ids) - boxes.keys()):
    raise UserError(
      f"{path}: {len(missing)} cases have no box, such as {missing[0]}; add their boxes"
    )


def check_same_boxes(path: Path, own: Boxes) -> None:
  """Checks that the boxes of a run have not changed since it began.

  Args:
    path: the file that the config names; if it is gone, nothing is compared.
    own: the boxes that the run began with.

  Raises:
    UserError: a box differs.
  """
  # The run's own copy is enough to continue: the user's file may have been moved or deleted.
  now = read_boxes(path) if path.exists() else own
  if differing := [case for case, box in own.items() if now.get(case) != box]:
    raise UserError(
      f"config.data.boxes={path}: the box of {differing[0]} differs from the one that the run "
      "began with (its boxes.json); choose another --workdir"
    )


def box_voxels(box: Box, grid: Grid, patch: Shape, case: str) -> Slices:
  """Returns the voxels of a working grid that a box covers, grown to at least the patch.

  Raises:
    UserError: the box lies outside the scan.
  """
  try:
    return box.voxel_slices(grid, patch)
  except ValueError as error:
    raise UserError(
      f"config.data.boxes: the box of {case} lies outside the scan ({error}); corners are in mm "
      "from the scan's middle"
    ) from None
