"""Draws patches as the network sees them: real ones above, painted ones below.

python docs/draw_patches.py DATA docs/images/patches.png

DATA holds the records of folder_ct/native_msd07_slabs and painted_ct/maps; the recipe is
`pancreas.py:real`. They are the first patches of its schedule that hold pancreas, augmented.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import AXIAL, Place, draw_slice, find_largest_slices
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.volume import Volume
from benchmarks.first_patches import make_first_patches

_COLUMNS, _TILE, _TEXT, _GAP = 5, 240, 26, 4
_WITH_PANCREAS = 40  # voxels of 3 mm in one slice: a square centimetre is eleven


def main(data: Path, output: Path) -> None:
  """Draws the slice of each patch with most pancreas."""
  config = replace_keys(
    resolve_draft(load_experiment("experiments/pancreas.py:real")), {"data.dir": str(data)}
  )
  rows: dict[bool, list[np.ndarray]] = {False: [], True: []}
  for is_painted, picture in draw_patches(config):
    rows[is_painted] = [*rows[is_painted], picture][:_COLUMNS]
    if min(map(len, rows.values())) == _COLUMNS:
      break
  canvas = Canvas(_COLUMNS * _TILE, 2 * (_TILE + _TEXT))
  for row, (is_painted, pictures) in enumerate(rows.items()):
    for column, picture in enumerate(pictures):
      canvas.paste(picture, column * _TILE, row * (_TILE + _TEXT))
    text = "painted on label maps" if is_painted else "slabs of real CT"
    canvas.write(text, _GAP, row * (_TILE + _TEXT) + _TILE, size=16, colour=GREY)
  with atomic_write(output) as temporary:
    temporary.write_bytes(canvas.encode())


def draw_patches(config: RunConfig) -> Iterator[tuple[bool, np.ndarray]]:
  """Yields of patch after patch whether it is painted, and its RGB picture."""
  for patch in make_first_patches(config, steps=100):
    pancreas = patch.label == 1
    if pancreas.sum((0, 1)).max() >= _WITH_PANCREAS:
      yield patch.is_painted, _draw(patch.image, patch.label, pancreas)


def _draw(image: np.ndarray, label: np.ndarray, pancreas: np.ndarray) -> np.ndarray:
  """Draws a slice; what is unlabelled for want of voxels is black, as in the scan it is air."""
  place = Place(AXIAL, find_largest_slices(pancreas, 1)[0])
  shown = np.where(label == UNLABELLED, 0.0, image).astype(np.float32)
  size = (_TILE - _GAP, _TILE - _GAP)
  style = SliceStyle(window_hu=(0.0, 1.0), outline_px=1)
  return draw_slice(
    Volume(shown, np.eye(4)), pancreas.astype(np.uint8), (1.0, 1.0, 1.0), place, size, style
  )


if __name__ == "__main__":
  main(*map(Path, sys.argv[1:3]))
