"""The ranges of all random draws of an augmentation. Loads no JAX."""

from dataclasses import dataclass

from attn_unet_jax.augment.registry import AUGMENTATIONS
from attn_unet_jax.runtime.options import (
  BELOW_ONE,
  FRACTION,
  NOT_NEGATIVE,
  POSITIVE,
  Options,
  Rule,
  option,
)

Range = tuple[float, float]
PerAxis = tuple[float, float, float]

_ORDERED = Rule("(lo, hi) with lo <= hi", lambda ends: ends[0] <= ends[1], whole=True)
_NAMES = Rule(
  f"names of {list(AUGMENTATIONS)}, or import paths like 'my_package.my_module:add_streaks'",
  lambda name: isinstance(name, str) and (name in AUGMENTATIONS or name.count(":") == 1),
)


# The ranges of the following dataclasses are nnU-Net's, of which a probability of 0 reads nothing.
@dataclass(frozen=True)
class BlurOptions(Options):
  """The options of a Gaussian blur."""

  blur_probability: float = option(0.0, "Probability that a patch is blurred.", FRACTION)
  blur_sd: Range = option(
    (0.5, 1.0), "Range of the sd of the blur, voxels.", _ORDERED, NOT_NEGATIVE
  )


@dataclass(frozen=True)
class BrightnessOptions(Options):
  """The options of a factor on intensities."""

  brightness_probability: float = option(
    0.0, "Probability that a patch's intensities get a factor.", FRACTION
  )
  brightness_factor: Range = option(
    (0.75, 1.25), "Range of that factor, below 1 as often as above.", _ORDERED, NOT_NEGATIVE
  )


@dataclass(frozen=True)
class ContrastOptions(Options):
  """The options of the distance of intensities from their mean."""

  contrast_probability: float = option(
    0.0, "Probability that a patch's intensities move away from or to their mean.", FRACTION
  )
  contrast_factor: Range = option(
    (0.75, 1.25), "Range of the factor on that distance.", _ORDERED, NOT_NEGATIVE
  )


@dataclass(frozen=True)
class LowResolutionOptions(Options):
  """The options of a coarser grid, from which an image is brought back to its own."""

  low_resolution_probability: float = option(
    0.0, "Probability that a patch is sampled on a coarser grid and back.", FRACTION
  )
  low_resolution_zoom: Range = option(
    (0.5, 1.0), "Range of the voxels of that grid, a fraction along each axis.",
    _ORDERED, POSITIVE, FRACTION,
  )  # fmt: skip


@dataclass(frozen=True)
class GammaOptions(Options):
  """The options of gamma curves that keep mean and sd."""

  gamma_probability: float = option(
    0.0, "Probability of a gamma curve that keeps a patch's mean and sd.", FRACTION
  )
  gamma_inverted_probability: float = option(
    0.0, "Probability of such a curve with bright and dark exchanged.", FRACTION
  )
  gamma_range: Range = option((0.7, 1.5), "Range of the power of these curves.", _ORDERED, POSITIVE)


@dataclass(frozen=True)
class Augmentation(
  GammaOptions, LowResolutionOptions, ContrastOptions, BrightnessOptions, BlurOptions
):
  """The ranges of all random draws, which are uniform; the defaults are neutral.

  The rotation is R = Rz Ry Rx. With `corner_scale` s an affine map moves the patch's corners: each
  coordinate of each corner is drawn from 1 - s to 1 times itself, and the map is the least-squares
  fit. Intensities are those of the normalised image.
  """

  flip: PerAxis = option((0.0, 0.0, 0.0), "Probability of mirroring along X, Y, Z.", FRACTION)
  rotate_deg: PerAxis = option(
    (0.0, 0.0, 0.0), "Largest angle about X, Y, Z, degrees.", NOT_NEGATIVE
  )
  scale: Range = option(
    (1.0, 1.0),
    "Range of the factor from patch to source coordinates: below 1 zooms in.",
    _ORDERED, NOT_NEGATIVE, POSITIVE,
  )  # fmt: skip
  scale_axes: tuple[bool, bool, bool] = option(
    (True, True, True), "Axes that are scaled, each by a factor of its own."
  )
  shift: PerAxis = option(
    (0.0, 0.0, 0.0), "Largest shift per axis, a fraction of the patch.", NOT_NEGATIVE
  )
  corner_scale: float = option(0.0, "Largest relative shrinkage of a corner's place.", BELOW_ONE)
  spatial_probability: float = option(
    1.0, "Probability that rotation, scale, shift and corners apply to a patch.", FRACTION
  )
  deform_sd: PerAxis = option(
    (0.0, 0.0, 0.0), "Sd of a smooth random displacement along X, Y, Z, voxels.", NOT_NEGATIVE
  )
  deform_spacing: float = option(32.0, "Distance of its control points, voxels.", POSITIVE)
  deform_probability: float = option(1.0, "Probability that it applies to a patch.", FRACTION)
  histogram_probability: float = option(
    0.0,
    "Probability that a patch takes on another open case's intensities, first of all.",
    FRACTION,
  )
  intensity_scale: Range = option(
    (1.0, 1.0), "Range of the factor on intensities.", _ORDERED, NOT_NEGATIVE
  )
  intensity_shift: Range = option((0.0, 0.0), "Range of the summand on intensities.", _ORDERED)
  noise_sd: Range = option((0.0, 0.0), "Range of the sd of Gaussian noise.", _ORDERED, NOT_NEGATIVE)
  noise_probability: float = option(1.0, "Probability that noise is added to a patch.", FRACTION)
  extra: tuple[str, ...] = option(
    (), "Further intensity augmentations, in order: gamma, or import paths of your own.", _NAMES
  )

  @property
  def deforms(self) -> bool:
    """Returns whether any patch is deformed."""
    return self.deform_probability > 0 and any(sd > 0 for sd in self.deform_sd)

  @property
  def warps(self) -> bool:
    """Returns whether any patch is resampled; if not, no interpolation takes place."""
    # Flips alone need no resampling: they move whole voxels.
    scales = self.scale != (1.0, 1.0) and any(self.scale_axes)
    sizes = (*self.rotate_deg, *self.shift, self.corner_scale)
    moves = scales or any(size > 0 for size in sizes)
    return self.deforms or (self.spatial_probability > 0 and moves)


# That of Oktay et al. 2018, which is also the default of a run.
# Within the axial plane alone, as released: one map serves all slices of a scan.
OKTAY_2018 = Augmentation(
  flip=(0.5, 0.5, 0.0),
  rotate_deg=(0.0, 0.0, 15.0),
  scale=(0.7, 1.3),
  scale_axes=(True, True, False),
  shift=(0.1, 0.1, 0.0),
)
