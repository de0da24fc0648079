"""Draws slabs of real CT: what the expert outlined beside what the network did.

python docs/draw_slabs.py SLABS MASKS docs/images/real_ct.png 'msd_001=worst, DSC 0.12' ...

SLABS holds imagesTr/NAME.nii.gz and labelsTr/NAME.nii.gz, MASKS what `predict` wrote for them.
"""

import sys
from pathlib import Path

import numpy as np

from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import (
  AXIAL,
  Place,
  draw_slice,
  find_largest_slices,
  find_region,
)
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume

_TILE, _TEXT, _GAP = 320, 28, 6
_MARGIN_MM = 55.0  # around the organ, so that its neighbours are seen


def main(slabs: Path, masks: Path, output: Path, captions: dict[str, str]) -> None:
  """Draws the slice of each slab with most pancreas, the expert's above the network's."""
  canvas = Canvas(len(captions) * _TILE, 2 * (_TILE + _TEXT))
  for column, (name, caption) in enumerate(captions.items()):
    image = to_canonical(read_nifti(slabs / "imagesTr" / f"{name}.nii.gz"))
    expert = to_canonical(read_label(slabs / "labelsTr" / f"{name}.nii.gz")).array > 0
    network = to_canonical(read_label(masks / f"{name}.nii.gz")).array == 1
    place = Place(AXIAL, find_largest_slices(expert, 1)[0])
    region = (*find_region(expert, image.spacing, _MARGIN_MM)[:2], slice(None))
    cut = Volume(image.array[region], image.affine)
    for row, (mask, text) in enumerate(((expert, f"{name}, expert"), (network, caption))):
      y = row * (_TILE + _TEXT)
      inside = _TILE - _GAP
      classes = np.where(mask[region], row + 1, 0).astype(np.uint8)
      picture = draw_slice(cut, classes, image.spacing, place, (inside, inside), SliceStyle())
      height, width = picture.shape[:2]
      x = column * _TILE
      canvas.paste(picture, x + (_TILE - width) // 2, y + (_TILE - height) // 2)
      canvas.write(text, x + _GAP, y + _TILE, size=16, colour=GREY, width=inside)
  with atomic_write(output) as temporary:
    temporary.write_bytes(canvas.encode())


if __name__ == "__main__":
  main(*map(Path, sys.argv[1:4]), dict(text.split("=", 1) for text in sys.argv[4:]))
