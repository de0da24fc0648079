"""A drawn abdomen on an 8 mm grid, and its label: nothing is wrong with either."""

import numpy as np

from attn_unet_jax.volumes import Volume

SHAPE = (40, 40, 24)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
AFFINE[:3, 3] = -160, -160, -300
ORGAN = (slice(12, 18), slice(24, 28), slice(8, 12))


def drawn_ct(seed: int = 0) -> Volume:
  """HU int16: air, a body of fat and muscle, a spine, and an organ of 90 HU at ORGAN."""
  rng = np.random.default_rng(seed)
  x, y, _ = np.indices(SHAPE)
  hu = np.where(np.hypot(x - 19.5, (y - 19.5) * 1.3) < 17, -100, -1000)
  hu[np.hypot(x - 19.5, (y - 19.5) * 1.3) < 13] = 20
  hu[18:22, 8:12] = 500
  hu[12:28, 30:33] = -850  # gas
  hu[22:28, 24:28, 8:12] = -100  # what lies where flips of the organ would
  hu[12:28, 12:16] = -100
  hu[ORGAN] = 90
  return Volume((hu + rng.normal(0, 12, SHAPE)).astype(np.int16), AFFINE)


def drawn_label() -> Volume:
  """1 at ORGAN: 96 voxels, 49.2 ml."""
  label = np.zeros(SHAPE, np.uint8)
  label[ORGAN] = 1
  return Volume(label, AFFINE)
