"""Measures where the gates of a run look in a scan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.prepare import working_image
from attn_unet_jax.inference.attention import AttentionMaps
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box, crop_volume
from attn_unet_jax.volumes.shear import straighten_image
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import load_best

# From a scan, HU on its native grid, the box to look in or None for all of it, and its name: the
# coefficients by the name of the gate, on the working grid.
MeasureAttention = Callable[[Volume, Box | None, str], dict[str, Volume]]


def _measure_within(
  working: Volume, box: Box | None, system: AttentionMaps, patch: tuple[int, int, int]
) -> np.ndarray:
  """Measures coefficients `[X, Y, Z, G]`; outside the box, where nothing looks, they are 0."""
  if box is None:
    return system.predict(working)
  where = box_voxels(box, working.grid, patch, "this scan")
  values = np.zeros((*working.shape, len(system.names)), np.float32)
  values[where] = system.predict(crop_volume(working, where))
  return values


def open_attention(workdir: Path) -> MeasureAttention:
  """Opens the best checkpoint of a run, to measure the coefficients of its gates.

  Raises:
    UserError: there is no run of one network, or its network has no gates.
  """
  found = load_best(workdir)
  system = AttentionMaps(found.config, found.module, found.variables)
  if not system.names:
    raise UserError(f"{workdir}: its network, {found.config.model.name}, has no attention gates")

  def measure(image: Volume, box: Box | None, name: str) -> dict[str, Volume]:
    canonical = straighten_image(image)
    working = working_image(canonical, found.config.data, name, in_box=box is not None)
    values = _measure_within(working, box, system, found.config.data.patch)
    return {gate: Volume(values[..., i], working.affine) for i, gate in enumerate(system.names)}

  return measure
