"""How much host memory an answer takes beyond that of a plain prediction."""

import math
from collections.abc import Sequence

import numpy as np

from attn_unet_jax.runtime.memory import require_memory
from attn_unet_jax.volumes.volume import Grid, Volume
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions

_FLOAT32, _INT16 = 4, 2


def require_answer_memory(
  grid: Grid, trained: LoadedRun, options: AnswerOptions, name: object
) -> None:
  """Refuses a scan whose averages or maps memory cannot hold, before anything is computed.

  A plain prediction is checked where the working grid is made.

  Args:
    grid: the scan's own.
    trained: the run, with what it averages over.
    options: what is written.
    name: the scan, for the message.

  Raises:
    UserError: memory cannot hold the answer.
  """
  # A box of a scan may be small, and what it averages with it.
  if trained.locate is None and options.boxes_file is None:
    spacing = trained.config.data.spacing_mm
    _require_averages([max(1, round(extent / spacing)) for extent in grid.field_mm], trained, name)
  if options.saves_maps:
    # Of the maps themselves, and of one class that is interpolated.
    maps = _INT16 * (1 + len(trained.classes)) * options.save_probabilities + 2 * _FLOAT32
    require_memory(
      # Maps lie on the scan's own grid, which may be much finer than the working grid.
      math.prod(grid.shape) * maps,
      f"{name}: maps on its own grid of {' x '.join(map(str, grid.shape))} voxels",
      "leave out --save_probabilities and --save_uncertainty",
    )


class MemoryGuard:
  """A run's system, which refuses volumes whose averages memory cannot hold.

  For where cases are predicted one after the other, and nothing is known of them before.
  """

  def __init__(self, trained: LoadedRun):
    self._trained = trained

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`.

    Raises:
      UserError: memory cannot hold what is averaged.
    """
    size = " x ".join(map(str, volume.shape))
    _require_averages(volume.shape, self._trained, f"a case of {size} voxels")
    return self._trained.system.predict(volume)


def _require_averages(shape: Sequence[int], trained: LoadedRun, name: object) -> None:
  require_memory(
    int(math.prod(shape) * _count_averaged_bytes(trained)),
    f"{name}: the probabilities that are averaged",
    "leave out axes of --tta or scales of --tta_scales, or name fewer runs, or one of fewer "
    "networks",
  )


def _count_averaged_bytes(trained: LoadedRun) -> float:
  """Returns the bytes per voxel of the working grid at the peak of a prediction."""
  array = _FLOAT32 * (1 + len(trained.classes))
  # As of one prediction: the image, its mirrored or padded copy, and sums of probabilities.
  plain = array + 2 * _INT16
  # Each average waits with what it has while the next prediction is made.
  waiting = (len(trained.members) > 1) + len(trained.mirrors)
  largest = max((1.0, *trained.scales)) ** 3
  # What each member says is the likeliest class, for their agreement.
  said = len(trained.members)
  # Scaled answers come back as an array more, beside the mean.
  return largest * (plain + waiting * array + said) + 2 * array * bool(trained.scales)
