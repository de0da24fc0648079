"""Measures where the gates of a run look in scans, and in which places of their cases."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.prepare import native_classes, working_image
from attn_unet_jax.evaluation.gate_places import describe_gates, measure_gates, write_gate_means
from attn_unet_jax.inference.attention import AttentionMaps
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box, crop_volume
from attn_unet_jax.volumes.places import divide_places
from attn_unet_jax.volumes.resample import resample_labels
from attn_unet_jax.volumes.shear import straighten_image, straighten_labels
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import load_networks

# From a scan, HU on its native grid, the box to look in or None for all of it, and its name: the
# coefficients by the name of the gate, on the working grid.
MeasureAttention = Callable[[Volume, Box | None, str], dict[str, Volume]]
ATTENTION = "attention.csv"


def _measure_within(
  working: Volume, box: Box | None, system: AttentionMaps, patch: tuple[int, int, int]
) -> np.ndarray:
  """Measures coefficients `[X, Y, Z, G]`; outside the box, where nothing looks, they are 0."""
  if box is None:
    return system.predict(working)
  where = box_voxels(box, working.grid, patch, "this scan")
  # The map has to lie on the grid of the whole scan, as a viewer shows it.
  values = np.zeros((*working.shape, len(system.names)), np.float32)
  values[where] = system.predict(crop_volume(working, where))
  return values


def open_attention(workdir: Path) -> MeasureAttention:
  """Opens the best checkpoint of a run, to measure the coefficients of its gates.

  Where a release has several networks, they are those of the first.

  Raises:
    UserError: there is no run of one network, or its network has no gates.
  """
  found, *others = load_networks(workdir)
  if others:
    print_line(f"attention gates: those of the first of {1 + len(others)} networks")
  system = AttentionMaps(found.config, found.module, found.variables)
  if not system.names:
    raise UserError(f"{workdir}: its network, {found.config.model.name}, has no attention gates")

  def measure(image: Volume, box: Box | None, name: str) -> dict[str, Volume]:
    """Measures the coefficients of each gate in a scan, on the working grid."""
    # As for a prediction: coefficients belong to what the network sees.
    canonical = straighten_image(image, name)
    working = working_image(canonical, found.config.data, name)
    values = _measure_within(working, box, system, found.config.data.patch)
    return {gate: Volume(values[..., i], working.affine) for i, gate in enumerate(system.names)}

  return measure


def measure_places(
  maps: Mapping[str, Volume], case: NativeCase, fold: DataFold
) -> dict[str, dict[str, float]]:
  """Returns the mean coefficient of each gate by place, on the working grid.

  Args:
    maps: as `MeasureAttention` returns them.
    case: its scan and label. The organ is every class of the fold together.
    fold: the data set that it is of.
  """
  # All maps lie on the working grid of the case.
  first, *_ = maps.values()
  straight = straighten_labels(native_classes(case, fold.mapping), UNLABELLED, case.id)
  classes = resample_labels(straight, first.grid).array
  # Where nobody knows what a voxel is, it is in no place of the organ.
  known = classes != UNLABELLED
  places = divide_places(known & (classes > 0), first.spacing)
  values = np.stack([one.array for one in maps.values()], -1)
  return measure_gates(values, [*maps], places, known)


def write_attention(
  measure: MeasureAttention, fold: DataFold, ids: Sequence[str], folder: Path
) -> None:
  """Writes `attention.csv`: where the gates look in each case; prints the means over the cases."""
  found = {}
  for case_id in show_progress(ids, len(ids), "attention"):
    case = fold.dataset.load(case_id)
    box = fold.boxes[case_id] if fold.boxes else None
    found[case_id] = measure_places(measure(case.image, box, case_id), case, fold)
  write_gate_means(folder / ATTENTION, found)
  for line in describe_gates(found):
    print_line(line)
