"""Brings a case from its native grid to the working grid, for training as for prediction."""

import dataclasses

import numpy as np

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.foreground import foreground_positions
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.labels import SHARE_STEPS, UNLABELLED, LabelMapping, class_names
from attn_unet_jax.volumes.box import Box, crop_volume
from attn_unet_jax.volumes.checks import working_grid_within_memory
from attn_unet_jax.volumes.intensity import measure_intensity
from attn_unet_jax.volumes.resample import (
  gaussian_blur,
  resample_labels,
  resample_occupancy,
  resample_volume,
)
from attn_unet_jax.volumes.shear import straighten_image, straighten_labels
from attn_unet_jax.volumes.volume import Grid, Volume

_INT16 = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True)
class WorkingCase:
  """A case on the working grid: HU int16 and class indices uint8 `[X, Y, Z]`, canonical axes.

  With soft labels (`data.label_resampling=occupancy`) the label holds the share of each voxel that
  the class fills, in `SHARE_STEPS`. A case to paint on has materials, uint8, instead of HU; see
  `map_case`.

  `mean` and `sd` are those of the whole scan on the working grid, or of the box in it, HU.
  `positions` are the `foreground_positions` of the label, or None if they have not been listed.
  """

  id: str
  image: np.ndarray
  label: np.ndarray
  mean: float
  sd: float
  positions: np.ndarray | None = None

  @property
  def centres(self) -> np.ndarray:
    """The voxels on which patches may be centred: `positions`, listed now if necessary."""
    return foreground_positions(self.label) if self.positions is None else self.positions


def working_grid_for(canonical: Grid, data: DataOptions, name: object, more_bytes: int = 0) -> Grid:
  """Returns the working grid of a scan, after checking that a prediction on it fits into memory.

  Args:
    canonical: the scan's grid, canonical axes.
    data: how the working grid is reached.
    name: the scan, for the message.
    more_bytes: what the prediction holds of each voxel beside image and probabilities.

  Raises:
    UserError: memory cannot hold the prediction.
  """
  # Bytes per voxel at the peak of `SlidingWindow.predict`: the image, int16, and the sums of each
  # class's probabilities, float32. In a box, which may be small, they are pasted: as much.
  # Training needs this check too, since its validation predicts.
  held = 2 + 4 * (1 + len(class_names(data.labels))) + more_bytes
  return working_grid_within_memory(canonical, data.spacing_mm, name, held)


def working_image(
  canonical: Volume, data: DataOptions, name: object = "this scan", more_bytes: int = 0
) -> Volume:
  """Blurs a scan on straight axes, resamples it as configured, and rounds it to int16 HU.

  Raises:
    UserError: memory cannot hold a prediction on the working grid, and `more_bytes` of each voxel;
      the message names `name`.
  """
  grid = working_grid_for(canonical.grid, data, name, more_bytes)
  blurred = gaussian_blur(canonical, data.blur_mm) if data.blur_mm else canonical
  working = resample_volume(blurred, grid)
  rounded = np.empty(grid.shape[::-1], np.int16)
  # Plane by plane, since rounding the whole scan would allocate a second float image.
  for plane, values in zip(rounded, working.array.T, strict=True):
    # Beyond its range int16 would wrap around: metal would become air.
    plane[:] = np.clip(np.rint(values), _INT16.min, _INT16.max)
  return Volume(rounded.T, working.affine)


def prepare_case(
  case: NativeCase, mapping: LabelMapping, data: DataOptions, box: Box | None = None
) -> WorkingCase:
  """Brings image and label of a case to one working grid, which the image determines.

  Args:
    case: the case on its native grid.
    mapping: the classes of its label values.
    data: how the working grid is reached.
    box: the part to keep, grown to the patch. Mean and sd are then of this part, since the network
      sees nothing else of the scan.

  Raises:
    UserError: a label value is not in the mapping, the box lies outside the scan, or memory cannot
      hold the scan on the working grid.
  """
  # The image first: its grid is the one that the label is brought to.
  image = working_image(straighten_image(case.image, case.id), data, case.id)
  classes = resample_classes(case, mapping, image.grid, data)
  if box:
    where = box_voxels(box, image.grid, data.patch, case.id)
    image, classes = crop_volume(image, where), crop_volume(classes, where)
  mean, sd = measure_intensity(image.array)
  positions = list_centres(classes.array, data)
  return WorkingCase(case.id, image.array, classes.array, mean, sd, positions)


def list_centres(label: np.ndarray, data: DataOptions) -> np.ndarray:
  """Lists the voxels of a label on which patches may be centred; see `foreground_positions`."""
  by_class = data.foreground_choice == "classes"
  return foreground_positions(label, soft=data.has_soft_labels, by_class=by_class)


def resample_classes(
  case: NativeCase, mapping: LabelMapping, grid: Grid, data: DataOptions
) -> Volume:
  """Brings the label of a case to the working grid as classes, or as shares of a soft label."""
  # Labels become classes before they are resampled: interpolated label values mean nothing.
  label = straighten_labels(native_classes(case, mapping), name=case.id)
  if data.label_resampling == "occupancy":
    return resample_occupancy(label, grid, SHARE_STEPS, UNLABELLED)
  return resample_labels(label, grid, data.label_resampling)


def native_classes(case: NativeCase, mapping: LabelMapping) -> Volume:
  """Returns the class indices of a case, uint8, on its native grid."""
  # The image's affine serves both, so that rounding in the label's header cannot shift the classes.
  return Volume(mapping.apply(case.label.array, case.source), case.image.affine)
