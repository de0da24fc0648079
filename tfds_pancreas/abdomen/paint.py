"""From a label map to a CT scan: densities, textures, partial volume and noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.box import bounding_slices
from tfds_pancreas.abdomen.hollow import fill_hollow_organs
from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.abdomen.tissues import PHASES, TISSUES, find_tissue

Spacing = tuple[float, float, float]
_NAMES = list(TISSUES)
_INDEX = {name: index for index, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class ScanLook:
  """The ways in which scans may differ; ranges are drawn from uniformly.

  The default is that of one clinic.

  Attributes:
    spread: factor on the sd of each tissue's density between patients.
    between_phases: whether a scan may lie between two of the contrast phases.
    texture: range of a factor on the variation within organs.
    clefts: range of the fat between the lobules of the pancreas.
    blur_mm: range of the blur's sd.
    noise_hu: range of the scanner's noise, sd.
  """

  spread: float = 1.0
  between_phases: bool = False
  texture: tuple[float, float] = (1.0, 1.0)
  clefts: tuple[float, float] = (0.6, 1.6)
  blur_mm: tuple[float, float] = (1.0, 1.6)
  noise_hu: tuple[float, float] = (7.0, 16.0)


CLINIC = ScanLook()


def paint_ct(
  labels: np.ndarray,
  key: int | tuple[int, ...],
  *,
  spacing: Spacing,
  names: Mapping[int, str] | None = None,
  look: ScanLook = CLINIC,
) -> np.ndarray:
  """Paints a CT scan over a label map, drawn here or elsewhere.

  Args:
    labels: integers [X, Y, Z] on canonical (RAS+) axes; gas rises along Y.
    key: equal keys, labels and spacings give equal bits.
    spacing: millimetres between voxels.
    names: the organ's name of each label value; those of a phantom when None. The name decides the
      tissue (tissues.find_tissue); a value without a name is soft tissue. Where no name is 'fat', 0
      is taken for fat inside an ellipse around the labelled organs and for air outside it.
    look: how scans may differ.

  Returns:
    int16 [X, Y, Z] in HU.
  """
  # The order of the draws is part of the data set: another one would give other records.
  rng = np.random.default_rng(key)
  named = dict(names or {value: name for name, value in ORGANS.items()})
  tissue = _map_tissues(labels, named, spacing)
  hu = _draw_densities(rng, tissue, spacing, look)
  fill_hollow_organs(rng, hu, labels, named, spacing)
  _add_fat_clefts(rng, hu, tissue == _INDEX["pancreas"], spacing, look)
  # Noise after the blur: the scanner adds it to what partial volume has smoothed.
  hu = _blur_scan(rng, hu, spacing, look)
  hu += _draw_scanner_noise(rng, labels.shape, look)
  scan: np.ndarray = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)  # 12 bits, as scanners have
  return scan


def _map_tissues(labels: np.ndarray, names: Mapping[int, str], spacing: Spacing) -> np.ndarray:
  """Returns the index of each voxel's tissue in TISSUES, uint8 [X, Y, Z]."""
  lowest, highest = int(labels.min()), int(labels.max())
  organs = [
    names.get(value, "background" if value == 0 else "") for value in range(lowest, highest + 1)
  ]
  table = np.array([_INDEX[find_tissue(organ)] for organ in organs], np.uint8)
  tissue: np.ndarray = table[labels.astype(np.int64) - lowest]
  if "fat" not in names.values():
    tissue[(labels == 0) & _find_trunk(labels > 0, spacing)] = _INDEX["fat"]
  return tissue


def _find_trunk(organs: np.ndarray, spacing: Spacing) -> np.ndarray:
  """Returns an elliptic cylinder along Z, 30 mm wider than the organs' box, bool [X, Y, 1]."""
  box = bounding_slices(organs) or (slice(0, 1),) * 3
  across = []
  for axis in (0, 1):
    low, high = box[axis].start, box[axis].stop - 1
    radius = (high - low) / 2 + 30 / spacing[axis]
    across.append((np.arange(organs.shape[axis]) - (low + high) / 2) / radius)
  return (across[0][:, None] ** 2 + across[1][None, :] ** 2 < 1)[..., None]


def _draw_densities(
  rng: np.random.Generator, tissue: np.ndarray, spacing: Spacing, look: ScanLook
) -> np.ndarray:
  """Draws the patient's density of each tissue with its variation within the organ, float32 HU."""
  phase = int(rng.choice(len(PHASES), p=list(PHASES.values())))
  towards, share = phase, 0.0
  if look.between_phases:
    towards, share = int(rng.integers(len(PHASES))), float(rng.uniform())
  # Dose and circulation raise or lower all enhancement together; the rest is the organ's own.
  common = 0.6 * rng.standard_normal()
  means, slow, fine = [], [], []
  for density in TISSUES.values():
    mean, sd = (1 - share) * np.array(density.hu[phase]) + share * np.array(density.hu[towards])
    # 0.6 and 0.8: the squares add up to 1, so the sd is that of the table.
    means.append(mean + look.spread * sd * (common + 0.8 * rng.standard_normal()))
    slow.append(density.slow)
    fine.append(density.fine)
  levels, slow_sd, fine_sd = (np.array(values, np.float32) for values in (means, slow, fine))
  # No draw where the range is a point: phantoms of the default look keep their bits.
  strength = np.float32(rng.uniform(*look.texture)) if np.ptp(look.texture) else look.texture[0]
  hu: np.ndarray = levels[tissue]
  hu += (strength * slow_sd)[tissue] * draw_smooth_noise(rng, tissue.shape, spacing, 30.0)
  hu += (strength * fine_sd)[tissue] * draw_smooth_noise(rng, tissue.shape, spacing, 5.0)
  return hu


def _add_fat_clefts(
  rng: np.random.Generator, hu: np.ndarray, pancreas: np.ndarray, spacing: Spacing, look: ScanLook
) -> None:
  """Adds fat between the lobules of the pancreas, more in some patients, in place."""
  box = bounding_slices(pancreas)
  if box is None:
    return
  # A field is near 0 on thin sheets: these are the clefts.
  clefts = draw_smooth_noise(rng, hu[box].shape, spacing, 5.5)
  amount = rng.uniform(*look.clefts)
  share = 0.55 * np.clip(amount - np.abs(clefts) * 2.2, 0, 1) * pancreas[box]
  hu[box] += share * (-90 - hu[box])


def _blur_scan(
  rng: np.random.Generator, hu: np.ndarray, spacing: Spacing, look: ScanLook
) -> np.ndarray:
  """Blurs a scan by a Gaussian, as partial volume does: a voxel sees its neighbours."""
  sigma = rng.uniform(*look.blur_mm)
  blurred: np.ndarray = ndimage.gaussian_filter(hu, [sigma / step for step in spacing], truncate=3)
  return blurred


def _draw_scanner_noise(
  rng: np.random.Generator, shape: tuple[int, ...], look: ScanLook
) -> np.ndarray:
  """Draws noise that neighbouring voxels share, as reconstruction leaves it, float32 HU."""
  noise = rng.standard_normal(shape, dtype=np.float32)
  noise = ndimage.gaussian_filter(noise, rng.uniform(0.5, 0.75), truncate=3)
  scaled: np.ndarray = noise * np.float32(rng.uniform(*look.noise_hu) / noise.std())
  return scaled
