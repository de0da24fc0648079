"""Brings the label map of a case to the working grid, for images that are painted in the step."""

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import (
  WorkingCase,
  list_centres,
  resample_classes,
  working_grid_for,
)
from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.painting.material_map import check_values, find_materials
from attn_unet_jax.volumes.box import Box, crop_volume
from attn_unet_jax.volumes.resample import resample_labels
from attn_unet_jax.volumes.shear import straighten_labels
from attn_unet_jax.volumes.volume import Volume


def prepare_map(
  case: NativeCase, mapping: LabelMapping, data: DataOptions, box: Box | None = None
) -> WorkingCase:
  """Brings a whole map of organs to the working grid; the case's own image is not used.

  Args:
    case: the case on its native grid, with labels that `material_map.check_names` accepts.
    mapping: the classes of its label values.
    data: how the working grid is reached.
    box: the part to keep, grown to the patch.

  Returns:
    a case with the material of every voxel, uint8, in the place of HU. No mean and sd are known of
    an image that does not exist yet: they are 0 and 1.

  Raises:
    UserError: a label value cannot be painted or is not in the mapping, the box lies outside the
      scan, or memory cannot hold the map on the working grid.
  """
  check_values(case.label.array, case.source)
  # The image's affine serves both, as for a case that is not painted.
  label = straighten_labels(Volume(case.label.array, case.image.affine), name=case.id)
  grid = working_grid_for(label.grid, data, case.id)
  if data.label_resampling == "occupancy":
    # A voxel has one material, also where its label holds shares.
    organs = resample_labels(label, grid)
    classes = resample_classes(case, mapping, grid, data)
  else:
    # Classes of the resampled organs, not resampled classes: what is labelled is what is painted.
    organs = resample_labels(label, grid, data.label_resampling)
    classes = Volume(mapping.apply(organs.array, case.source), grid.affine)
  materials = Volume(find_materials(organs.array, grid.spacing), grid.affine)
  if box:
    where = box_voxels(box, grid, data.patch, case.id)
    materials, classes = crop_volume(materials, where), crop_volume(classes, where)
  positions = list_centres(classes.array, data)
  return WorkingCase(case.id, materials.array, classes.array, 0.0, 1.0, positions)
