"""One painting: which map it is made of, and how it is made."""

from dataclasses import dataclass

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.checked_case import CheckedCase, VolumePair
from tfds_pancreas.painted_ct.label_maps import MapFile, read_map
from tfds_pancreas.painted_ct.painting import PaintingRecipe, paint_map


@dataclass(frozen=True)
class PaintingJob:
  """A painting to be made: number `number` of the map `map_id`, which is `file`."""

  id: str
  map_id: str
  file: MapFile
  number: int


def paint_case(job: PaintingJob, recipe: PaintingRecipe) -> CheckedCase:
  """Paints a map; what is wrong with the map becomes a problem of the case."""
  case = CheckedCase(job.id)
  try:
    image, label = paint_map(read_map(*job.file), job.map_id, job.number, recipe)
  except UserError as error:
    case.problems.append(str(error))
    return case
  pancreas = label.array == ALL_ORGANS["pancreas"]
  case.pair = VolumePair(image, label)
  case.figures = {
    "map": job.map_id,
    "painting": job.number,
    "shape": image.shape,
    "spacing_mm": image.spacing,
    "pancreas_ml": round(float(pancreas.sum()) * label.voxel_volume_ml, 1),
    "pancreas_mean_hu": round(float(image.array[pancreas].mean()), 1),
  }
  return case
