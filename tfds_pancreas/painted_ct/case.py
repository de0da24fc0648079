"""One painting: which map it is made of, and how it is made."""

from dataclasses import dataclass
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.checked_case import CheckedCase, Pair
from tfds_pancreas.painted_ct.maps import read_map
from tfds_pancreas.painted_ct.painting import Recipe, paint_map

Organs = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class PaintingFiles:
  """One painting to be made."""

  id: str
  map_id: str
  path: Path
  number: int


def paint_case(files: PaintingFiles, organs: Organs, recipe: Recipe) -> CheckedCase:
  """Paints a map; what is wrong with it ends in the case's problems."""
  case = CheckedCase(files.id)
  try:
    image, label = paint_map(read_map(files.path, organs), files.map_id, files.number, recipe)
  except UserError as error:
    case.problems.append(str(error))
    return case
  pancreas = label.array == ALL_ORGANS["pancreas"]
  case.pair = Pair(image, label)
  case.figures = {
    "map": files.map_id,
    "painting": files.number,
    "shape": image.shape,
    "spacing_mm": image.spacing,
    "pancreas_ml": round(float(pancreas.sum()) * label.voxel_volume_ml, 1),
    "pancreas_mean_hu": round(float(image.array[pancreas].mean()), 1),
  }
  return case
