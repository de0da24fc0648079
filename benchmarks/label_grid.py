"""How well can a working grid hold an organ's outline? Resamples real label maps there and back.

  python -m benchmarks.label_grid --labels=FOLDER --value=2

Every label map of the folder is brought to the working grid by each of `data.label_resampling`, as
probabilities of 0 and 1 or as shares, and back to its own grid as a prediction is: the DSC is then
the best that a network of this grid can reach. Beside it the shift of the organ's centre on the
working grid against its own, per axis, and its volume on the working grid by its own.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.evaluation.overlap import count_voxels, dice_score
from attn_unet_jax.labels import SHARE_STEPS
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.resample import (
  probabilities_to_labels,
  resample_labels,
  resample_occupancy,
  working_grid,
)
from attn_unet_jax.volumes.volume import Grid, Volume
from benchmarks.result import keep

METHODS = ("nearest", "balanced", "onehot_linear", "occupancy")


def main() -> None:
  """Measures every map by every method."""
  arguments = _arguments()
  maps = list_nifti_files(Path(arguments.labels))
  cases = {
    name: measure_map(to_canonical(read_label(path)), arguments.value, arguments.spacing)
    for name, path in maps.items()
  }
  means = {
    method: float(np.mean([case[method]["dsc"] for case in cases.values()])) for method in METHODS
  }
  keep({"spacing_mm": arguments.spacing, "mean_dsc": means, "cases": cases}, arguments.output)


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--labels", required=True, help="folder of label maps")
  parser.add_argument("--value", type=int, default=1, help="the organ's value")
  parser.add_argument("--spacing", type=float, default=2.0, help="of the working grid, mm")
  parser.add_argument("--output", help="JSON file for the figures")
  return parser.parse_args()


def measure_map(labels: Volume, value: int, spacing_mm: float) -> dict[str, dict[str, Any]]:
  """Measures one map on canonical axes by every method."""
  mask = Volume((labels.array == value).astype(np.uint8), labels.affine)
  grid = working_grid(mask.grid, spacing_mm)
  centre, millilitres = _centre_mm(mask.array, mask.grid), mask.array.sum() * mask.voxel_volume_ml
  figures = {}
  for method in METHODS:
    share = _share_on_grid(mask, grid, method)
    back = probabilities_to_labels(np.stack([1 - share, share], -1), grid, mask.grid)
    figures[method] = {
      "dsc": dice_score(count_voxels(back.array == 1, mask.array == 1)),
      "shift_mm": (_centre_mm(share, grid) - centre).round(3).tolist(),
      "volume": float(share.sum() * np.prod(grid.spacing) / 1000 / millilitres),
    }
  return figures


def _share_on_grid(mask: Volume, grid: Grid, method: Any) -> np.ndarray:
  if method == "occupancy":
    stored, steps = resample_occupancy(mask, grid, SHARE_STEPS), SHARE_STEPS
  else:
    stored, steps = resample_labels(mask, grid, method), 1
  share: np.ndarray = stored.array.astype(np.float32) / steps
  return share


def _centre_mm(weight: np.ndarray, grid: Grid) -> np.ndarray:
  index = np.argwhere(weight > 0)
  middle = np.average(index, axis=0, weights=weight[weight > 0])
  centre: np.ndarray = grid.affine[:3, :3] @ middle + grid.affine[:3, 3]
  return centre


if __name__ == "__main__":
  main()
