"""What an augmentation may draw."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Range = tuple[float, float]
PerAxis = tuple[float, float, float]

_RANGES = ("scale", "intensity_scale", "intensity_shift", "noise_sd")
_PER_AXIS = ("flip", "rotate_deg", "shift", "scale_axes", "deform_sd")
_PROBABILITIES = ("flip", "spatial_probability", "deform_probability", "histogram_probability")


@dataclass(frozen=True)
class Augmentation:
  """What may be drawn, every draw uniform. The defaults are neutral: nothing changes.

  Attributes:
    flip: probability of mirroring, per axis X, Y, Z.
    rotate_deg: largest angle r about each axis, drawn from [-r, r], in degrees; R = Rz Ry Rx.
    scale: range of the factor from patch to source coordinates: below 1 zooms in.
    scale_axes: which axes are scaled; each draws its own factor.
    shift: largest shift per axis, as a fraction of the patch.
    corner_scale: s, of an affine map that moves the patch's corners: each coordinate of each corner
      is drawn from 1 - s to 1 times itself, and the map is the least-squares fit.
    spatial_probability: probability that all of the above but flips apply to a patch.
    deform_sd: standard deviation of a smooth random displacement along each axis, in voxels.
    deform_spacing: voxels between its control points.
    deform_probability: probability that it applies to a patch.
    histogram_probability: probability that a patch takes on the intensities of another scan, before
      all else.
    intensity_scale: range of the factor a of `a * image + b`.
    intensity_shift: range of b, in units of the normalised image.
    noise_sd: range of the standard deviation of Gaussian noise, in the same units.

  Raises:
    ValueError: a range with lo > hi, a negative size, a scale or spacing of 0, or a probability
      outside [0, 1].
  """

  flip: PerAxis = (0.0, 0.0, 0.0)
  rotate_deg: PerAxis = (0.0, 0.0, 0.0)
  scale: Range = (1.0, 1.0)
  scale_axes: tuple[bool, bool, bool] = (True, True, True)
  shift: PerAxis = (0.0, 0.0, 0.0)
  corner_scale: float = 0.0
  spatial_probability: float = 1.0
  deform_sd: PerAxis = (0.0, 0.0, 0.0)
  deform_spacing: float = 32.0
  deform_probability: float = 1.0
  histogram_probability: float = 0.0
  intensity_scale: Range = (1.0, 1.0)
  intensity_shift: Range = (0.0, 0.0)
  noise_sd: Range = (0.0, 0.0)

  def __post_init__(self) -> None:
    for field in fields(self):
      _check(field.name, getattr(self, field.name))

  @property
  def deforms(self) -> bool:
    """Whether any patch is deformed."""
    return self.deform_probability > 0 and any(sd > 0 for sd in self.deform_sd)

  @property
  def warps(self) -> bool:
    """Whether any patch is resampled; if not, no interpolation takes place."""
    scales = self.scale != (1.0, 1.0) and any(self.scale_axes)
    sizes = (*self.rotate_deg, *self.shift, self.corner_scale)
    moves = scales or any(size > 0 for size in sizes)
    return self.deforms or (self.spatial_probability > 0 and moves)


def _check(name: str, value: Any) -> None:
  if name in _RANGES and not (len(value) == 2 and value[0] <= value[1]):
    raise ValueError(f"augmentation {name}={value}: expected (lo, hi) with lo <= hi")
  if name in _PER_AXIS and len(value) != 3:
    raise ValueError(f"augmentation {name}={value}: expected one value per axis X, Y, Z")
  if name != "intensity_shift" and np.min(value) < 0:
    raise ValueError(f"augmentation {name}={value}: must not be negative")
  if name in ("scale", "deform_spacing") and np.min(value) == 0:
    raise ValueError(f"augmentation {name}={value}: must be above 0")
  if name == "corner_scale" and value >= 1:
    raise ValueError(f"augmentation {name}={value}: must be below 1")
  if name in _PROBABILITIES and np.max(value) > 1:
    raise ValueError(f"augmentation {name}={value}: a probability is at most 1")
