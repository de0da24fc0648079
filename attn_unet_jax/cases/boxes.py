"""Where in each scan a run looks: `{"CASE": [[x, y, z], [x, y, z]], ...}`, low and high corner.

In mm from the middle of the scan's field of view, along right, anterior and superior, so that a box
of one working spacing holds for every other.
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
  """The boxes of a JSON file.

  Raises:
    UserError: it is missing, or not such a file.
  """
  try:
    content = read_json(path)
    corners = {case: np.array(box, np.float64) for case, box in content.items()}
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; it must hold a box of each case") from None
  except (ValueError, TypeError, AttributeError, OverflowError):
    corners = {"": np.zeros(0)}
  for case, box in corners.items():
    fits = box.shape == (2, 3) and (box[0] < box[1]).all() and (np.abs(box) <= _FARTHEST_MM).all()
    if not fits:
      raise UserError(
        f"{path}: {case or 'it'} is no box; write"
        ' {"CASE": [[x, y, z], [x, y, z]]}, lowest and highest corner in mm from the scan\'s'
        f" middle, at most {_FARTHEST_MM:g}"
      )
  return {case: box_from_corners(*box) for case, box in corners.items()}


def to_json(boxes: Boxes) -> str:
  """The file that `read` reads."""
  lines = [f" {json.dumps(case)}: {json.dumps([box.low, box.high])}" for case, box in boxes.items()]
  return "{\n" + ",\n".join(lines) + "\n}\n"


def check_boxes(boxes: Boxes, ids: Iterable[str], path: object) -> None:
  """Refuses boxes in which a case is missing.

  Raises:
    UserError: names the first ones.
  """
  if missing := sorted(set(ids) - boxes.keys()):
    raise UserError(f"{path}: no box of {len(missing)} cases such as {missing[0]}; add them")


def check_same_boxes(path: Path, own: Boxes) -> None:
  """Refuses to go on with a run whose boxes have changed since it began.

  Args:
    path: the file that the config names; if it has gone, the run's own copy holds.
    own: the boxes that the run was begun with.

  Raises:
    UserError: a box differs.
  """
  now = read_boxes(path) if path.exists() else own
  if differing := [case for case, box in own.items() if now.get(case) != box]:
    raise UserError(
      f"config.data.boxes={path}: the box of {differing[0]} is not the one that the run was begun "
      "with (its boxes.json); choose another --workdir"
    )


def box_voxels(box: Box, grid: Grid, patch: Shape, case: str) -> Slices:
  """The part of a working grid that a run looks at: the box, grown to the patch.

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
