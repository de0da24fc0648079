"""A scan that is drawn, for benchmarks to which only its size matters."""

import numpy as np

from attn_unet_jax.volumes.volume import Volume

_SPACING_MM = (0.8, 0.8, 1.0)


def draw_scan(slices: int) -> Volume:
  """Draws a trunk that fills most of its field, HU int16."""
  size = 512
  place = (np.arange(size) - size / 2) / (size / 2)
  inside = (place[:, None] / 0.9) ** 2 + (place / 0.7) ** 2 < 1
  flat = np.where(inside, 40, -1000).astype(np.int16)
  array = np.empty((size, size, slices), np.int16, order="F")
  rng = np.random.default_rng(0)
  for z in range(slices):
    array[..., z] = flat + rng.integers(-60, 60, flat.shape, np.int16)
  return Volume(array, np.diag([*_SPACING_MM, 1.0]))
