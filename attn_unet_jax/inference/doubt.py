"""Maps on a scan's own grid: probabilities, how undecided they are, and where gates are open."""

from collections.abc import Iterator, Sequence

import numpy as np

from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.volumes.nifti import FULL_SHARE
from attn_unet_jax.volumes.resample import resample_volume
from attn_unet_jax.volumes.shear import slant_image, straight_grid
from attn_unet_jax.volumes.volume import Grid, Volume


def map_probabilities(found: ScanProbabilities) -> np.ndarray:
  """Returns the probability of each class at the scan's own voxels, on the scan's own axes.

  These are the network's: the steps that follow it are not taken.

  Returns:
    uint16 `[X, Y, Z, K]`, in units of 1 / 65535.
  """
  # In the order in which NIfTI stores them, so that they are written as they lie.
  shares = np.empty((found.values.shape[-1], *found.native.shape[::-1]), np.uint16)
  for share, values in zip(shares, _interpolate_classes(found), strict=True):
    share[:] = slant_image(np.rint(values * FULL_SHARE), found.native).array.T
  return shares.T


def map_entropy(found: ScanProbabilities) -> Volume:
  """Returns the entropy of the classes at the scan's own voxels: 0 is decided, 1 is not at all.

  With p of K classes it is -sum p ln p / ln K, float32 `[X, Y, Z]`.
  """
  total = np.zeros(found.canonical.shape, np.float32)
  for p in _interpolate_classes(found):
    # p ln p tends to 0 as p does.
    total -= p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
  total /= np.float32(np.log(found.values.shape[-1]))
  return slant_image(np.clip(total, 0, 1), found.native)


def map_gates(gates: Sequence[Volume], native: Grid) -> np.ndarray:
  """Returns the coefficients of gates at a scan's own voxels, on the scan's own axes.

  Args:
    gates: coefficients in [0, 1], each on the working grid.
    native: the scan's grid.

  Returns:
    uint16 `[X, Y, Z, G]`, in units of 1 / 65535.
  """
  straight = straight_grid(native)
  shares = np.empty((len(gates), *native.shape[::-1]), np.uint16)
  for share, gate in zip(shares, gates, strict=True):
    values = np.clip(resample_volume(gate, straight).array, 0, 1)
    share[:] = slant_image(np.rint(values * FULL_SHARE), native).array.T
  return shares.T


def _interpolate_classes(found: ScanProbabilities) -> Iterator[np.ndarray]:
  """Yields the probability of each class on the scan's grid with canonical axes, in [0, 1]."""
  for index in range(found.values.shape[-1]):
    values = Volume(found.values[..., index], found.grid.affine)
    # Of rounded sums, an average may be a little more than 1.
    yield np.clip(resample_volume(values, found.canonical).array, 0, 1)
