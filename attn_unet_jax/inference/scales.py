"""Test-time augmentation: a scan is also shown a little larger and smaller."""

import math
from collections.abc import Sequence

import numpy as np

from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.resample import resample_volume, working_grid
from attn_unet_jax.volumes.volume import Grid, Volume

_RANGE = (0.5, 2.0)
_FLOAT32, _INT16 = 4, 2


class ScaledSystem:
  """A system that averages what another one says about a scan and about scaled copies of it.

  A copy of scale s has about s times the voxels along each axis, on spacings that are given as they
  were: the body looks s times as large. Probabilities are interpolated back onto the scan's grid,
  linearly and about the same centre, so that they still sum to 1.

  Args:
    system: segments a working-grid volume.
    scales: of the copies; the scan itself is always among the predictions.
  """

  def __init__(self, system: SegmentationSystem, scales: Sequence[float]):
    self._system, self._scales = system, tuple(scales)

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`; an array of that size more.

    Raises:
      UserError: memory cannot hold a scaled copy and the answer to it.
    """
    mean = self._system.predict(volume)
    # The running mean, as of an ensemble: equal answers stay what they are.
    for count, scale in enumerate(self._scales, 2):
      change = self._predict_scaled(volume, scale, mean.shape[-1]) - mean
      change *= np.float32(1 / count)
      mean = np.add(mean, change, out=change)
    return mean

  def _predict_scaled(self, volume: Volume, scale: float, classes: int) -> np.ndarray:
    grid = working_grid(volume.grid, [spacing / scale for spacing in volume.spacing])
    _require_memory(volume, grid, scale, classes)
    copy = resample_volume(volume, grid).array
    if np.issubdtype(volume.array.dtype, np.integer):
      # Whole HU as in a scan: the cast below alone would round all towards 0.
      copy = np.rint(copy)
    as_before = volume.affine.copy()
    answer = self._system.predict(Volume(copy.astype(volume.array.dtype), as_before))
    back = np.empty((*volume.shape, answer.shape[-1]), np.float32)
    for index in range(answer.shape[-1]):
      # On the grid that the copy truly has, not on that which the network was told.
      back[..., index] = resample_volume(Volume(answer[..., index], grid.affine), volume.grid).array
    return back


def _require_memory(volume: Volume, copy: Grid, scale: float, classes: int) -> None:
  # As of a prediction: the copy, perhaps padded, and sums of probabilities. The answer then comes
  # back onto the scan's own grid.
  held = _FLOAT32 * classes + 2 * _INT16
  memory.require_memory(
    math.prod(copy.shape) * held + math.prod(volume.shape) * _FLOAT32 * classes,
    f"--tta_scales: {' x '.join(map(str, copy.shape))} voxels of the scan scaled by {scale:g}",
    "leave out that scale",
  )


def parse_scales(texts: Sequence[str]) -> tuple[float, ...]:
  """Reads the scales of `--tta_scales`, such as `0.9,1.1`; none are none.

  Raises:
    UserError: one is no number from 0.5 to 2, is 1, or is there twice.
  """
  said, scales = ",".join(texts), []
  for text in texts:
    try:
      scale = float(text)
    except ValueError:
      scale = math.nan
    if not _RANGE[0] <= scale <= _RANGE[1] or scale == 1:
      raise UserError(
        f"--tta_scales={said}: {text!r} is no number from {_RANGE[0]:g} to {_RANGE[1]:g} other "
        "than 1, which is always among them; write --tta_scales=0.9,1.1"
      )
    scales.append(scale)
  if len(set(scales)) < len(scales):
    raise UserError(f"--tta_scales={said}: a scale is there twice")
  return tuple(sorted(scales))
