"""Pictures of many cases on pages of 1280 x 800 pixels: a slice each, with its name and classes."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.legend import write_legend
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import AXIAL, Place, draw_slice, find_largest_slices
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.volume import Volume

COLUMNS, ROWS = 4, 2
TILE = 320  # pixels of a case along both axes, and _TEXT below them
_TEXT = 80  # a name, and a legend of two lines
_GAP = 8


class SheetCase(NamedTuple):
  """A case on a contact sheet.

  Attributes:
    number: of the case, from 1.
    name: of the case.
    picture: RGB uint8 [H, W, 3], TILE high and wide at most.
    millilitres: of each class by its name, in the order of their values from 1; None for a class
      whose volume is not known.
  """

  number: int
  name: str
  picture: np.ndarray
  millilitres: Mapping[str, float | None]


def draw_largest_slice(
  image: Volume | None, classes: np.ndarray | None, spacing: Sequence[float]
) -> np.ndarray:
  """Draws the axial slice with most of all classes, or the middle one.

  Args:
    image: HU on canonical axes; None: the label alone is drawn.
    classes: class indices [X, Y, Z] on the same grid; None: the image alone is drawn.
    spacing: of the voxels along (X, Y, Z), mm.

  Returns:
    RGB uint8 [H, W, 3], TILE high or wide.
  """
  largest = find_largest_slices(classes > 0, 1) if classes is not None else []
  values = image.array if image is not None else classes
  assert values is not None
  place = Place(AXIAL, largest[0] if largest else values.shape[AXIAL] // 2)
  # The gap keeps slices apart that fill their tiles.
  inside = TILE - _GAP
  return draw_slice(image, classes, spacing, place, (inside, inside), SliceStyle())


def write_contact_sheets(folder: Path, cases: Iterable[SheetCase]) -> list[str]:
  """Writes `contact_sheet_1.png`, ... with COLUMNS x ROWS cases each.

  Args:
    folder: where.
    cases: taken page by page, so they need not all exist at a time.

  Returns:
    the names of the files.
  """
  remaining, names = iter(cases), list[str]()
  while page := list(itertools.islice(remaining, COLUMNS * ROWS)):
    names.append(f"contact_sheet_{len(names) + 1}.png")
    with atomic_write(folder / names[-1]) as temporary:
      temporary.write_bytes(_draw_page(page))
  return names


def _draw_page(cases: Sequence[SheetCase]) -> bytes:
  # The last page ends below its last case.
  rows = -(-len(cases) // COLUMNS)
  canvas = Canvas(COLUMNS * TILE, rows * (TILE + _TEXT))
  for index, case in enumerate(cases):
    row, column = divmod(index, COLUMNS)
    x, y = column * TILE, row * (TILE + _TEXT)
    height, width = case.picture.shape[:2]
    canvas.paste(case.picture, x + (TILE - width) // 2, y + (TILE - height) // 2)
    left, room = x + _GAP, TILE - 2 * _GAP
    number = canvas.write(str(case.number), left, y + TILE, size=17, colour=GREY)
    canvas.write(case.name, left + number + 8, y + TILE, size=17, width=room - number - 8)
    write_legend(canvas, case.millilitres, left, y + TILE + 24, room, size=14, lines=2)
  return canvas.encode()
