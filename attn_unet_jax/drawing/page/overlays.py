"""Embeds maps of a scan: the coefficients of attention gates, or the entropy of a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from attn_unet_jax.drawing.page.coding import encode_volume
from attn_unet_jax.volumes.volume import Grid, Volume

# What is said of maps beside their colours.
ABOUT_GATES = (
  "a gate passes features at 1 and holds them back at 0; the lower its level, the finer its grid"
)
ABOUT_ENTROPY = "entropy of the prediction: 0 where it is decided, 1 where it guesses"
_SPACING_MM = 4.0  # of the embedded maps: the gates of level 2 decide for 8 mm on a grid of 2 mm


@dataclass(frozen=True)
class EmbeddedMap:
  """The values of a map in the part of a scan that is shown.

  Attributes:
    text: as `encode_volume` writes them: 0 is `low`, 255 is `high`.
    low: the lowest value.
    high: the highest.
    about: what is said of it.
  """

  text: str
  low: float
  high: float
  about: str = ""


def embed_maps(
  shown: Grid, maps: Mapping[str, Volume], about: Mapping[str, str] | None = None
) -> tuple[tuple[int, int, int], dict[str, EmbeddedMap]]:
  """Brings maps to the part of a scan that is shown.

  Args:
    shown: the grid of that part, canonical axes.
    maps: values by the name of their map, each on a grid of its own.
    about: what is said of a map, by its name.

  Returns:
    the shape of the embedded maps, whose voxels share the extent of `shown` evenly, and the maps.
  """
  sizes = [
    # Not finer than the part that is shown, and a thin part keeps a voxel.
    max(1, min(n, round(n * mm / _SPACING_MM)))
    for n, mm in zip(shown.shape, shown.spacing, strict=True)
  ]
  shape = (sizes[0], sizes[1], sizes[2])
  steps = [n / size for n, size in zip(shown.shape, shape, strict=True)]
  # The middle of each voxel of the maps, in voxels of `shown`.
  middles = [(np.arange(size) + 0.5) * step - 0.5 for size, step in zip(shape, steps, strict=True)]
  points = np.stack(np.meshgrid(*middles, indexing="ij"))
  found = {}
  for name, volume in maps.items():
    to_map = np.linalg.inv(volume.affine) @ shown.affine
    at = np.tensordot(to_map[:3, :3], points, 1) + to_map[:3, 3, None, None, None]
    # By default the rim beyond the outermost centres would be 0, which no gate said.
    values = map_coordinates(volume.array, at, order=1, mode="nearest")
    low, high = float(values.min()), float(values.max())
    # A constant map has no range to divide by.
    codes = np.rint((values - low) * (255 / (high - low or 1))).astype(np.uint8)
    found[name] = EmbeddedMap(encode_volume(codes), low, high, (about or {}).get(name, ""))
  return shape, found
