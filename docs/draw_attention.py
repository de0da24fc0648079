"""Draws a slab of real CT: the expert's outline, the network's, and where the network looks.

python docs/draw_attention.py SLABS msd_138 docs/images/attention.png

SLABS holds image/NAME.nii.gz and label/NAME.nii.gz, all of whose values are pancreas. The network
is the bundled one, and the gate the one on the finest grid that tells the organ from the
rest most (docs/explanation/attention.md). `make pictures` runs it.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from attn_unet_jax.api import load_run, read_scan, segment
from attn_unet_jax.cases.folds import read_folds
from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.colours import blend_shares, shade_shares
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import AXIAL, Place, draw_slice, find_largest_slices, find_region
from attn_unet_jax.inference.doubt import map_gates
from attn_unet_jax.runs.builtin import find_run
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.nifti import FULL_SHARE, read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.measure_attention import open_attention

NETWORK = "builtin:pancreas"
GATE = "level2/0"
FOLDS = Path("attn_unet_jax/cases/fold_lists/msd07_slabs.json")
_TILE, _TEXT, _GAP = 320, 32, 8
_BAR = 70, 14
_MARGIN_MM = 60.0  # around the organ, so that its neighbours are seen
# As classes: in the colours that the page of a run gives to truth and prediction.
_OF_NETWORK, _OF_EXPERT = 1, 2


def main(slabs: Path, name: str, output: Path) -> None:
  """Draws the slice with most pancreas three times, side by side."""
  if name not in read_folds(FOLDS)["folds"][0]["test"]:
    raise UserError(f"{name}: no test patient of {FOLDS}, so the network may have seen it")
  scan = read_scan(slabs / "image" / f"{name}.nii.gz")
  expert = to_canonical(read_label(slabs / "label" / f"{name}.nii.gz")).array > 0
  network = to_canonical(segment(scan, load_run(NETWORK))).array == 1
  coefficients = measure_gate(scan, name)
  number = find_largest_slices(expert, 1)[0]
  high = float(coefficients[..., number].max())
  tiles = [*draw_tiles(to_canonical(scan), expert, network, coefficients / high)]
  height, width = tiles[0].shape[:2]
  canvas = Canvas(3 * width + 2 * _GAP, height + _TEXT)
  dsc = 2 * np.count_nonzero(expert & network) / (expert.sum() + network.sum())
  texts = "the expert's pancreas", f"the network's: DSC {dsc:.2f}", f"attention, {GATE}"
  for column, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
    x = column * (width + _GAP)
    canvas.paste(tile, x, 0)
    canvas.write(text, x + 4, height + 7, size=17, colour=GREY)
  write_bar(canvas, 3 * width + 2 * _GAP - 4, height + 7, high)
  save_small(canvas.encode(), output)


def measure_gate(scan: Volume, name: str) -> np.ndarray:
  """Returns the coefficients of the gate on the scan's canonical axes."""
  maps = open_attention(find_run(NETWORK))(scan, None, name)
  shares = map_gates([maps[GATE]], scan.grid)[..., 0] / np.float32(FULL_SHARE)
  return to_canonical(Volume(shares, scan.affine)).array


def draw_tiles(
  image: Volume, expert: np.ndarray, network: np.ndarray, shares: np.ndarray
) -> Iterator[np.ndarray]:
  """Yields RGB pictures of one slice: both outlines, then the overlay with the expert's.

  Args:
    image: HU [X, Y, Z] on canonical axes.
    expert: where the organ is.
    network: where it was found.
    shares: coefficients by the highest that is shown.
  """
  region = (*find_region(expert, image.spacing, _MARGIN_MM)[:2], slice(None))
  place = Place(AXIAL, find_largest_slices(expert, 1)[0])

  def draw(values: np.ndarray, mask: np.ndarray | None, style: SliceStyle) -> np.ndarray:
    cut = Volume(values[region], image.affine)
    classes = None if mask is None else mask[region].astype(np.uint8)
    return draw_slice(cut, classes, image.spacing, place, (_TILE, _TILE), style)

  by_expert = draw(image.array, _OF_EXPERT * expert, SliceStyle())
  yield by_expert
  yield draw(image.array, _OF_NETWORK * network, SliceStyle())
  plain = draw(image.array, None, SliceStyle())
  # Drawn as if it were an image: in the same place and of the same size.
  overlay = draw(shares, None, SliceStyle(window_hu=(0.0, 1.0)))[..., 0] / 255
  yield np.where(by_expert != plain, by_expert, blend_shares(plain, overlay)).astype(np.uint8)


def write_bar(canvas: Canvas, right: int, y: int, high: float) -> None:
  """Draws the bar of colours, from 0 to the highest coefficient, that ends at the right side."""
  width, height = _BAR
  left = right - width - 42
  bar = shade_shares(np.linspace(0, 1, width)[None].repeat(height, 0)).astype(np.uint8)
  canvas.paste(bar, left, y + 3)
  canvas.write("0", left - 5, y, size=17, colour=GREY, anchor="ra")
  canvas.write(f"{high:.2f}", right, y, size=17, colour=GREY, anchor="ra")


def save_small(png: bytes, output: Path) -> None:
  """Writes a picture of 256 colours, for a third of the bytes."""
  small = Image.open(io.BytesIO(png)).quantize(256, Image.Quantize.MAXCOVERAGE)
  with atomic_write(output) as temporary:
    small.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
  try:
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
  except UserError as error:
    sys.exit(f"error: {error}")
