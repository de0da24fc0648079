"""Watches where attention gates look on the fixed patches, from epoch to epoch."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from attn_unet_jax.labels import UNLABELLED, is_foreground
from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.volumes.places import PLACES, divide_places

_UNKNOWN = len(PLACES)

# By gate the sums of its coefficients in the places, and the voxels of these, `[2, P]`.
PlaceSums = dict[str, np.ndarray]


class GateWatch:
  """The places of fixed patches, in which the coefficients of gates are summed.

  Args:
    batches: the patches.
    margin: voxels by which the network's output is smaller than a patch, on each side.
    spacing_mm: of their voxels.
  """

  def __init__(
    self, batches: Sequence[NetworkInput], margin: tuple[int, int, int], spacing_mm: float
  ):
    self._batches, self._margin, self._spacing = batches, margin, spacing_mm
    # Divided with their first coefficients: a network without gates needs no places.
    self._places: dict[int, np.ndarray] = {}

  def sum_batch(self, number: int, gates: Mapping[str, jax.Array]) -> PlaceSums:
    """Sums the coefficients of a batch in its places.

    Args:
      number: of the batch.
      gates: coefficients `[N, x, y, z]` by gate. A gate whose grid does not divide the output's
        evenly is left out.
    """
    if not gates:
      return {}
    if number not in self._places:
      self._places[number] = self._divide_batch(self._batches[number])
    places = self._places[number]
    shares: dict[tuple[int, ...], np.ndarray] = {}
    found = {}
    for name, values in gates.items():
      if any(n % size for n, size in zip(places.shape, values.shape, strict=True)):
        continue
      # Several gates may have one grid.
      if values.shape not in shares:
        shares[values.shape] = _share_places(places, values.shape)
      share = shares[values.shape]
      sums = share @ np.asarray(values, np.float32).ravel()
      found[name] = np.stack([sums, share.sum(1)])
    return found

  def _divide_batch(self, batch: NetworkInput) -> np.ndarray:
    """Returns the place of every voxel of the output, uint8 `[N, X, Y, Z]`."""
    label = np.asarray(batch.label)
    # Of soft labels, what an organ fills for more than its half is of it.
    organ = is_foreground(label) & (label > 0.5)
    places = np.stack([divide_places(one, [self._spacing] * 3) for one in organ])
    places[label == UNLABELLED] = _UNKNOWN
    x, y, z = (slice(m, n - m) for m, n in zip(self._margin, label.shape[1:], strict=True))
    return places[:, x, y, z]


def average_sums(batches: Sequence[PlaceSums]) -> dict[str, dict[str, float]]:
  """Returns by gate and place the mean coefficient of all batches, NaN where there is no voxel."""
  means = {}
  for name in dict.fromkeys(name for batch in batches for name in batch):
    sums, counts = np.sum([batch[name] for batch in batches if name in batch], 0)
    means[name] = {
      place: float(sums[index] / counts[index]) if counts[index] else math.nan
      for index, place in enumerate(PLACES)
    }
  return means


def _share_places(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns what share each place has of each voxel of a coarser grid, float32 `[P, voxels]`."""
  n, *grid = shape
  steps = [size // own for size, own in zip(places.shape[1:], grid, strict=True)]
  blocks = places.reshape(n, *(part for pair in zip(grid, steps, strict=True) for part in pair))
  counts = [(blocks == index).sum((2, 4, 6)).ravel() for index in range(len(PLACES))]
  shares: np.ndarray = np.stack(counts).astype(np.float32) / math.prod(steps)
  return shares
