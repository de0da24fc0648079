"""A picture of one scan with its mask, of 1280 x 800 pixels."""

from collections.abc import Mapping, Sequence

import numpy as np

from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.legend import write_legend
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import (
  AXIAL,
  CORONAL,
  PLANES,
  SAGITTAL,
  Place,
  draw_slice,
  find_centre,
  find_largest_slices,
  find_region,
)
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume

_WIDTH, _HEIGHT = 1280, 800
_MARGIN, _TITLE = 12, 86
_CAPTION = 24
_LARGEST = 4
# What lies at the left and at the right of a slice: the patient's right, left, front, back.
_SIDES = {AXIAL: ("R", "L"), CORONAL: ("R", "L"), SAGITTAL: ("A", "P")}
_AROUND_MM = 25.0  # shown around the organ in the slices of its largest area


def draw_preview(
  name: str,
  image: Volume,
  mask: Volume,
  classes: Sequence[str],
  style: SliceStyle | None = None,
  *,
  expected_dsc: Mapping[str, float] | None = None,
) -> bytes:
  """Draws three planes through the organ, and below them the slices of its largest area.

  Args:
    name: of the scan.
    image: HU, axes as in its file.
    mask: class indices uint8 on the image's grid.
    classes: the names of the values 1, 2, ...
    style: window and outline.
    expected_dsc: by class, where it is estimated; it stands in the legend.

  Returns:
    a PNG file.
  """
  style = style or SliceStyle()
  canvas = Canvas(_WIDTH, _HEIGHT)
  # So that left is left in the picture, whatever the order of axes in the file.
  image, mask = to_canonical(image), to_canonical(mask)
  # One pass for all classes, of which those that were not found have a count too.
  counts = np.bincount(mask.array.ravel(), minlength=len(classes) + 1).tolist()
  millilitres = {one: counts[value] * mask.voxel_volume_ml for value, one in enumerate(classes, 1)}
  canvas.write(name, _MARGIN, 8, size=22, width=_WIDTH * 0.62)
  low, high = style.window_hu
  sizes = " x ".join(f"{size:.3g}" for size in image.spacing)
  about = f"voxels of {sizes} mm, window {low:g} to {high:g} HU"
  canvas.write(about, _WIDTH - _MARGIN, 12, size=15, colour=GREY, anchor="ra")
  width = _WIDTH - 2 * _MARGIN
  write_legend(canvas, millilitres, _MARGIN, 40, width, size=16, lines=2, expected_dsc=expected_dsc)
  organ = mask.array > 0
  half = (_HEIGHT - _TITLE) // 2
  _draw_planes(canvas, image, mask, find_centre(organ), half, style)
  if organ.any():
    _draw_largest(canvas, image, mask, organ, _TITLE + half, half, style)
  else:
    middle = _WIDTH / 2, _TITLE + 1.5 * half
    text = f"nothing was found of: {', '.join(classes)}"
    canvas.write(text, *middle, size=22, anchor="mm", width=_WIDTH - 2 * _MARGIN)
  return canvas.encode()


def _draw_planes(
  canvas: Canvas,
  image: Volume,
  mask: Volume,
  centre: tuple[int, int, int],
  height: int,
  style: SliceStyle,
) -> None:
  """Draws the three whole slices through a voxel."""
  width = (_WIDTH - 4 * _MARGIN) // 3
  for column, axis in enumerate((AXIAL, CORONAL, SAGITTAL)):
    x = _MARGIN + column * (width + _MARGIN)
    place = Place(axis, centre[axis])
    box = (height - _CAPTION - _MARGIN, width)
    picture = draw_slice(image, mask.array, image.spacing, place, box, style)
    caption = f"{PLANES[axis]}, slice {place.number + 1} of {image.shape[axis]}"
    _paste_with_caption(canvas, picture, caption, x, _TITLE, box, _SIDES[axis])


def _draw_largest(
  canvas: Canvas,
  image: Volume,
  mask: Volume,
  organ: np.ndarray,
  y: int,
  height: int,
  style: SliceStyle,
) -> None:
  """Draws the axial slices with most of the organ, near it."""
  region = find_region(organ, image.spacing, _AROUND_MM)
  # Not along z, so that slices keep the numbers of the scan. The affine's origin is not drawn.
  near = Volume(image.array[region[0], region[1]], image.affine)
  classes = mask.array[region[0], region[1]]
  chosen = find_largest_slices(organ, _LARGEST)
  width = (_WIDTH - (_LARGEST + 1) * _MARGIN) // _LARGEST
  for column, index in enumerate(chosen):
    x = _MARGIN + column * (width + _MARGIN)
    box = (height - _CAPTION - _MARGIN, width)
    picture = draw_slice(near, classes, image.spacing, Place(AXIAL, index), box, style)
    # 100 mm2 are 1 cm2.
    area = np.count_nonzero(organ[:, :, index]) * image.spacing[0] * image.spacing[1] / 100
    caption = f"axial {index + 1}: {area:.1f} cm2"  # viewers count slices from 1
    _paste_with_caption(canvas, picture, caption, x, y, box, _SIDES[AXIAL])


def _paste_with_caption(
  canvas: Canvas,
  picture: np.ndarray,
  caption: str,
  x: int,
  y: int,
  box: tuple[int, int],
  sides: tuple[str, str],
) -> None:
  """Pastes a slice under its caption, with the names of its left and right side."""
  canvas.write(caption, x, y + 2, size=15, colour=GREY, width=box[1])
  height, width = picture.shape[:2]
  left, top = x + (box[1] - width) // 2, y + _CAPTION
  canvas.paste(picture, left, top)
  for side, at, anchor in zip(sides, (left + 4, left + width - 4), ("lm", "rm"), strict=True):
    canvas.write(side, at, top + height / 2, size=14, colour=GREY, anchor=anchor)
