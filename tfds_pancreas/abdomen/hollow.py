"""What stomach and bowel hold: gas above, and below it fluid, contrast agent or faeces."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtri

from attn_unet_jax.volumes.box import bounding_slices
from tfds_pancreas.abdomen.noise import draw_smooth_noise

FLUID = (8.0, 35.0)  # HU, water to food
CONTRAST = (140.0, 330.0)  # HU, positive oral contrast agent
FAECES = (-60.0, 40.0)  # HU, with pockets of gas


@dataclass(frozen=True)
class HollowOrgan:
  """A kind of hollow organ, and how it is filled.

  Attributes:
    name: a part of the organ's name.
    wall: thickness in mm.
    collapsed: share of its stretches that hold nothing.
    gas: share of gas in the others, about.
    content: range in HU of what lies below the gas.
  """

  name: str
  wall: float
  collapsed: float
  gas: float
  content: tuple[float, float] = FLUID


HOLLOW_ORGANS = (
  HollowOrgan("stomach", wall=4.0, collapsed=0.05, gas=0.35),
  HollowOrgan("duodenum", wall=3.0, collapsed=0.6, gas=0.1),
  HollowOrgan("bowel", wall=2.5, collapsed=0.6, gas=0.08),
  HollowOrgan("colon", wall=2.2, collapsed=0.15, gas=0.5, content=FAECES),
)


def fill_hollow_organs(
  rng: np.random.Generator,
  hu: np.ndarray,
  labels: np.ndarray,
  names: dict[int, str],
  spacing: tuple[float, float, float],
) -> None:
  """Replaces the inside of hollow organs in `hu` [X, Y, Z], in place."""
  # One patient in four has drunk contrast agent, which fills all but the colon.
  oral_contrast = rng.random() < 0.25
  for organ in HOLLOW_ORGANS:
    content = CONTRAST if oral_contrast and organ.content is FLUID else organ.content
    values = [value for value, name in names.items() if organ.name in name]
    mask = np.isin(labels, values)
    box = bounding_slices(mask)
    if box is not None:
      _fill_lumen(rng, hu[box], mask[box], organ, content, spacing)


def _fill_lumen(
  rng: np.random.Generator,
  hu: np.ndarray,
  mask: np.ndarray,
  organ: HollowOrgan,
  content: tuple[float, float],
  spacing: tuple[float, float, float],
) -> None:
  """Fills the lumen of one kind of organ in `hu` [X, Y, Z], in place."""
  lumen = _find_lumen(rng, mask, organ, spacing)
  slow = draw_smooth_noise(rng, mask.shape, spacing, 30.0)
  fine = draw_smooth_noise(rng, mask.shape, spacing, 5.0)
  inside = np.mean(content) + np.ptp(content) * (0.4 * slow + 0.15 * fine)
  # The level differs between stretches (`slow`), as each loop traps its own gas.
  gas = measure_height(mask, spacing) > 9 * (1 - 2 * organ.gas - 0.7 * slow)
  if organ.content is FAECES:
    gas |= fine > 1.6  # pockets at any height
  hu[lumen] = np.where(gas, -980, inside)[lumen]


def _find_lumen(
  rng: np.random.Generator,
  mask: np.ndarray,
  organ: HollowOrgan,
  spacing: tuple[float, float, float],
) -> np.ndarray:
  """Returns the voxels deeper than the wall, where the organ is not collapsed."""
  deep = find_deep_part(mask, organ.wall, spacing)
  field = draw_smooth_noise(rng, mask.shape, spacing, 35.0)
  # The field is about normal, so its quantile leaves out the share that is collapsed.
  lumen: np.ndarray = deep & (field > ndtri(organ.collapsed))
  return lumen


def find_deep_part(
  mask: np.ndarray, wall: float, spacing: tuple[float, float, float]
) -> np.ndarray:
  """Returns the voxels of a mask that lie deeper in it than a wall of so many mm."""
  # A Gaussian of a half-space passes Phi(w / sigma) at depth w: 0.84 at one sigma.
  sigma = [wall / step for step in spacing]
  deep = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=2) > 0.84
  within: np.ndarray = mask & deep
  return within


def measure_height(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
  """Measures how far in front of its organ's middle each voxel lies, in mm."""
  # A patient lies on the back, so gas gathers at the front. The middle is that of the 40 mm around
  # a voxel: a loop of bowel knows nothing of the next one.
  y = np.arange(mask.shape[1], dtype=np.float32)[None, :, None] * spacing[1]
  window = [max(int(40 / step), 1) for step in spacing]
  weight = ndimage.uniform_filter(mask.astype(np.float32), window, mode="constant")
  middle = ndimage.uniform_filter(mask * y, window, mode="constant") / np.maximum(weight, 1e-3)
  height: np.ndarray = y - middle
  return height
