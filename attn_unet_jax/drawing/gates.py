"""A picture of a patch: truth, prediction, and where each attention gate is open."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.colours import blend_shares
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import AXIAL, Place, draw_slice, find_largest_slices
from attn_unet_jax.volumes.volume import Volume

_TILE, _TEXT, _GAP, _COLUMNS = 300, 26, 8, 4
_TITLE = 34
_PERCENTILES = 1, 99  # of the patch's intensities, which are normalised: black and white


class PatchLook(NamedTuple):
  """What a network makes of a patch, on canonical axes.

  Attributes:
    image: intensities [X, Y, Z], normalised in whatever way.
    truth: class indices uint8 [X, Y, Z].
    prediction: the same, by the network.
    gates: by name the coefficients [x, y, z] of a gate, whose grid divides the patch's evenly.
  """

  image: np.ndarray
  truth: np.ndarray
  prediction: np.ndarray
  gates: Mapping[str, np.ndarray]


def draw_patch(title: str, patch: PatchLook, spacing: Sequence[float]) -> bytes:
  """Draws the axial slice with most of the truth: its outlines, and each gate over it.

  The overlays reach from 0 to the highest coefficient of their gate in the patch.

  Args:
    title: of the picture.
    patch: the patch.
    spacing: of its voxels along (X, Y, Z), mm.

  Returns:
    a PNG file.
  """
  number = next(iter(find_largest_slices(patch.truth > 0, 1)), patch.truth.shape[2] // 2)
  tiles = [*_draw_tiles(patch, spacing, Place(AXIAL, number))]
  columns, rows = min(_COLUMNS, len(tiles)), math.ceil(len(tiles) / _COLUMNS)
  canvas = Canvas(columns * (_TILE + _GAP) + _GAP, _TITLE + rows * (_TILE + _TEXT + _GAP) + _GAP)
  canvas.write(title, _GAP, 8, size=18, width=columns * _TILE)
  for place, (caption, tile) in enumerate(tiles):
    row, column = divmod(place, _COLUMNS)
    x, y = _GAP + column * (_TILE + _GAP), _TITLE + row * (_TILE + _TEXT + _GAP)
    canvas.write(caption, x, y + 4, size=15, colour=GREY, width=_TILE)
    canvas.paste(tile, x, y + _TEXT)
  return canvas.encode()


def _draw_tiles(
  patch: PatchLook, spacing: Sequence[float], place: Place
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields captions and RGB pictures."""
  low, high = np.percentile(patch.image, _PERCENTILES).tolist()
  # A constant patch has no range to divide by.
  style = SliceStyle(window_hu=(low, max(high, low + 1e-6)))
  # Of a slice only the spacing is drawn, so that the patch may lie anywhere.
  grid = np.diag([*spacing, 1.0])

  def draw(values: np.ndarray, classes: np.ndarray | None, look: SliceStyle) -> np.ndarray:
    """Draws the slice of some values in the place and size of all tiles."""
    return draw_slice(Volume(values, grid), classes, spacing, place, (_TILE, _TILE), look)

  with_truth = draw(patch.image, patch.truth, style)
  yield "truth", with_truth
  yield "prediction", draw(patch.image, patch.prediction, style)
  plain = draw(patch.image, None, style)
  for name, coefficients in patch.gates.items():
    top = max(float(coefficients.max()), 1e-6)  # a gate may be shut everywhere
    steps = [n // size for n, size in zip(patch.image.shape, coefficients.shape, strict=True)]
    # Blocks show the gate's own grid, where interpolation would suggest a finer one.
    fine = np.kron(coefficients / top, np.ones(steps, np.float32))
    # Drawn as if it were an image: in the same place and of the same size.
    shares = draw(fine, None, SliceStyle(window_hu=(0.0, 1.0)))[..., 0] / 255
    # The two pictures differ where the truth's outline is, which stays on top.
    overlay = np.where(with_truth != plain, with_truth, blend_shares(plain, shares))
    yield f"{name}: dark 0, yellow {top:.2f}", overlay.astype(np.uint8)
