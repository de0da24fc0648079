"""Embeds the coefficients of attention gates, and measures where they are high."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from attn_unet_jax.drawing.page.coding import encode_volume
from attn_unet_jax.volumes.volume import Volume

_SPACING_MM = 4.0  # of the embedded maps: the gates of level 2 decide for 8 mm on a grid of 2 mm
_SHELL_MM = 10.0


@dataclass(frozen=True)
class EmbeddedMap:
  """The coefficients of one gate in the part of a scan that is shown.

  Attributes:
    text: as `encode_volume` writes them: 0 is `low`, 255 is `high`.
    low: the lowest coefficient.
    high: the highest.
    means: the mean coefficient by place: in the organ, in a shell of 10 mm around it, and in the
      rest of what is shown. A place without voxels is left out.
  """

  text: str
  low: float
  high: float
  means: Mapping[str, float]


def embed_maps(
  shown: Volume, maps: Mapping[str, Volume]
) -> tuple[tuple[int, int, int], dict[str, EmbeddedMap]]:
  """Brings maps to the part of a scan that is shown.

  Args:
    shown: the true class indices of that part, canonical axes.
    maps: coefficients by the name of their gate, each on a grid of its own.

  Returns:
    the shape of the embedded maps, whose voxels share the extent of `shown` evenly, and the maps.
  """
  sizes = [
    max(1, min(n, round(n * mm / _SPACING_MM)))
    for n, mm in zip(shown.shape, shown.spacing, strict=True)
  ]
  shape = (sizes[0], sizes[1], sizes[2])
  steps = [n / size for n, size in zip(shown.shape, shape, strict=True)]
  # The middle of each voxel of the maps, in voxels of `shown`.
  middles = [(np.arange(size) + 0.5) * step - 0.5 for size, step in zip(shape, steps, strict=True)]
  points = np.stack(np.meshgrid(*middles, indexing="ij"))
  organ = shown.array[tuple(np.rint(points).astype(int))] > 0
  spacing = [step * mm for step, mm in zip(steps, shown.spacing, strict=True)]
  places = _divide_places(organ, spacing)
  found = {}
  for name, volume in maps.items():
    to_map = np.linalg.inv(volume.affine) @ shown.affine
    at = np.tensordot(to_map[:3, :3], points, 1) + to_map[:3, 3, None, None, None]
    values = map_coordinates(volume.array, at, order=1, mode="nearest")
    low, high = float(values.min()), float(values.max())
    codes = np.rint((values - low) * (255 / (high - low or 1))).astype(np.uint8)
    means = {place: float(values[mask].mean()) for place, mask in places.items() if mask.any()}
    found[name] = EmbeddedMap(encode_volume(codes), low, high, means)
  return shape, found


def _divide_places(organ: np.ndarray, spacing: list[float]) -> dict[str, np.ndarray]:
  if not organ.any():
    return {"elsewhere": ~organ}
  distance = distance_transform_edt(~organ, sampling=spacing)
  return {
    "in the organ": organ,
    f"within {_SHELL_MM:g} mm of it": ~organ & (distance <= _SHELL_MM),
    "elsewhere": distance > _SHELL_MM,
  }
