"""Keeps what the network makes of one patch of the validation cases, to be looked at."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from attn_unet_jax.drawing.gates import PatchLook, draw_patch
from attn_unet_jax.labels import is_foreground
from attn_unet_jax.patches.batch import NetworkInput


class WatchedPatch:
  """The patch of some batches that holds most of the organ.

  Args:
    batches: fixed patches.
    margin: voxels by which the network's output is smaller than a patch, on each side.
    spacing_mm: of their voxels.
  """

  def __init__(
    self, batches: Sequence[NetworkInput], margin: tuple[int, int, int], spacing_mm: float
  ):
    self._batches, self._margin, self._spacing = batches, margin, spacing_mm
    counts = {
      (number, index): int(np.count_nonzero(is_foreground(label)))
      for number, batch in enumerate(batches)
      for index, label in enumerate(np.asarray(batch.label))
    }
    # All hosts but the primary have no fixed patches.
    self._place = max(counts, key=lambda place: counts[place], default=None)
    self._look: PatchLook | None = None

  def keep(self, number: int, prediction: jax.Array, gates: Mapping[str, jax.Array]) -> None:
    """Keeps what the network makes of the patch, if it is in this batch.

    Args:
      number: of the batch.
      prediction: class indices `[N, X, Y, Z]` of the network's output.
      gates: coefficients `[N, x, y, z]` by gate. A gate whose grid does not divide the output's
        evenly is left out.
    """
    if self._place is None or number != self._place[0]:
      return
    index, batch = self._place[1], self._batches[number]
    image, label = np.asarray(batch.image)[index, ..., 0], np.asarray(batch.label)[index]
    inner = tuple(slice(m, n - m) for m, n in zip(self._margin, label.shape, strict=True))
    # Of soft labels, what an organ fills for more than its half is of it.
    # Rounded up, a share becomes the index of its one class.
    truth = np.where(is_foreground(label) & (label > 0.5), np.ceil(label), 0).astype(np.uint8)
    found = {name: np.asarray(values, np.float32)[index] for name, values in gates.items()}
    shape = truth[inner].shape
    self._look = PatchLook(
      image[inner],
      truth[inner],
      np.asarray(prediction, np.uint8)[index],
      {
        name: values
        for name, values in found.items()
        if not any(n % size for n, size in zip(shape, values.shape, strict=True))
      },
    )

  def draw(self, title: str) -> bytes:
    """Draws what was kept last, as PNG; b'' where nothing was."""
    return draw_patch(title, self._look, [self._spacing] * 3) if self._look else b""
