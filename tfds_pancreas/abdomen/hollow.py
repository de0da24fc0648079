"""What stomach and bowel hold: gas above, and below it fluid, contrast agent or faeces."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtri

from attn_unet_jax.volumes.box import bounding_slices
from tfds_pancreas.abdomen.noise import smooth_noise

FLUID = (8.0, 35.0)  # HU, water to food
CONTRAST = (140.0, 330.0)  # HU, positive oral contrast agent
FAECES = (-60.0, 40.0)  # HU, with pockets of gas


@dataclass(frozen=True)
class Hollow:
  """A hollow organ: its wall (mm), and how often a stretch is collapsed, or a level is of gas."""

  name: str
  wall: float
  collapsed: float
  gas: float
  content: tuple[float, float] = FLUID


HOLLOWS = (
  Hollow("stomach", wall=4.0, collapsed=0.05, gas=0.35),
  Hollow("duodenum", wall=3.0, collapsed=0.6, gas=0.1),
  Hollow("bowel", wall=2.5, collapsed=0.6, gas=0.08),
  Hollow("colon", wall=2.2, collapsed=0.15, gas=0.5, content=FAECES),
)


def fill_hollows(
  rng: np.random.Generator,
  hu: np.ndarray,
  labels: np.ndarray,
  names: dict[int, str],
  spacing: tuple[float, float, float],
) -> None:
  """Replaces the inside of hollow organs in `hu` [X, Y, Z], in place."""
  oral_contrast = rng.random() < 0.25
  for hollow in HOLLOWS:
    content = CONTRAST if oral_contrast and hollow.content is FLUID else hollow.content
    values = [value for value, name in names.items() if hollow.name in name]
    mask = np.isin(labels, values)
    box = bounding_slices(mask)
    if box is not None:
      _fill(rng, hu[box], mask[box], hollow, content, spacing)


def _fill(
  rng: np.random.Generator,
  hu: np.ndarray,
  mask: np.ndarray,
  hollow: Hollow,
  content: tuple[float, float],
  spacing: tuple[float, float, float],
) -> None:
  """Fills the lumen of one kind of organ in `hu` [X, Y, Z], in place."""
  lumen = _lumen(rng, mask, hollow, spacing)
  slow = smooth_noise(rng, mask.shape, spacing, 30.0)
  fine = smooth_noise(rng, mask.shape, spacing, 5.0)
  inside = np.mean(content) + np.ptp(content) * (0.4 * slow + 0.15 * fine)
  gas = _height(mask, spacing) > 9 * (1 - 2 * hollow.gas - 0.7 * slow)
  if hollow.content is FAECES:
    gas |= fine > 1.6
  hu[lumen] = np.where(gas, -980, inside)[lumen]


def _lumen(
  rng: np.random.Generator, mask: np.ndarray, hollow: Hollow, spacing: tuple[float, float, float]
) -> np.ndarray:
  """Voxels deeper than the wall, where the organ is not collapsed."""
  # A Gaussian of a half-space passes Phi(w / sigma) at depth w: 0.84 at one sigma.
  sigma = [hollow.wall / step for step in spacing]
  deep = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=2) > 0.84
  field = smooth_noise(rng, mask.shape, spacing, 35.0)
  return mask & deep & (field > ndtri(hollow.collapsed))


def _height(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
  """How far in front of its organ's middle each voxel lies, in mm: gas gathers there."""
  y = np.arange(mask.shape[1], dtype=np.float32)[None, :, None] * spacing[1]
  window = [max(int(40 / step), 1) for step in spacing]
  weight = ndimage.uniform_filter(mask.astype(np.float32), window, mode="constant")
  middle = ndimage.uniform_filter(mask * y, window, mode="constant") / np.maximum(weight, 1e-3)
  return y - middle
