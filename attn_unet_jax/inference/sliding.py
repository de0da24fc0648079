"""Slides a network over a working-grid volume, in overlapping windows with Gaussian weights."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.patches.batch import normalise_intensity, output_shape
from attn_unet_jax.runtime.console import show_progress
from attn_unet_jax.runtime.signals import acknowledge_signals
from attn_unet_jax.volumes.intensity import measure_intensity
from attn_unet_jax.volumes.volume import Volume

Shape = tuple[int, int, int]


class SegmentationSystem(Protocol):
  """A system that segments volumes: a network in sliding windows, or several stages."""

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`, of a working-grid volume in HU."""


class SlidingWindow:
  """A compiled window of fixed shape that moves over a volume.

  Neighbours overlap by `inference.overlap`; where windows overlap their probabilities are averaged
  with a Gaussian weight (sd an eighth of the window), so that no seams appear.

  A network whose loss weighs class k by w[k] learns p[k] ~ w[k] P(k | image). With w as
  `inference.class_weights` a window's probabilities are p[k] / w[k], scaled to sum to 1: two
  classes are then equally likely at 0.5. (Elkan 2001: cost-sensitive learning, theorem 2.)

  Attributes:
    variables: the current parameters.
    window: a compiled function from `(variables, HU [X, Y, Z], mean, sd)` to probabilities
      `[X', Y', Z', K]`.
  """

  def __init__(self, recipe: PredictionRecipe, module: nn.Module):
    self._recipe = recipe
    self._patch = recipe.window
    self._margin: Shape = module.output_margin
    self._inner = output_shape(self._patch, self._margin)
    self._weights = gaussian_weights(self._inner)
    self._classes: int = module.num_classes
    shift = -np.log(np.array(recipe.inference.class_weights or [1.0], np.float32))
    self.variables: Any = None
    self._is_compiled = False

    def predict_window(variables: Any, hu: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
      image = normalise_intensity(recipe.data, hu, mean, sd)[None, ..., None]
      logits, _ = module.apply(variables, image, train=False)
      # Subtracting log w from the logits divides the probabilities by w and rescales them.
      return jax.nn.softmax(logits[0].astype(jnp.float32) + shift)

    self.window = jax.jit(predict_window)

  def use(self, variables: Any) -> "SlidingWindow":
    """Sets the parameters and returns this object."""
    # They are an argument of the compiled window, so that it serves every checkpoint.
    self.variables = variables
    return self

  def _announce_first_window(self) -> AbstractContextManager[None]:
    """Acknowledges signals within the first window, which compiles."""
    is_first, self._is_compiled = not self._is_compiled, True
    return acknowledge_signals("compiling the network") if is_first else nullcontext()

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`, in a few such arrays of host memory."""
    hu = volume.array
    # Of the scan before padding, as in training, where a case is measured when it is prepared.
    mean, sd = measure_intensity(hu)
    padded, low = _pad_volume(hu, self._inner, self._margin)
    extent = output_shape(padded.shape, self._margin)
    starts = window_starts(extent, self._inner, self._recipe.inference.overlap)
    total = np.zeros((*extent, self._classes), np.float32)
    weight = np.zeros((*extent, 1), np.float32)
    # Corners in the output; the input of a window starts there too, but is larger by the margin.
    corners = [(x, y, z) for x in starts[0] for y in starts[1] for z in starts[2]]
    for corner, probabilities in self._predict_windows(padded, corners, mean, sd):
      where = tuple(slice(c, c + n) for c, n in zip(corner, self._inner, strict=True))
      total[where] += probabilities * self._weights
      weight[where] += self._weights
    # Every voxel is covered by a window, so that no weight is zero.
    total /= weight
    return total[tuple(slice(a, a + n) for a, n in zip(low, hu.shape, strict=True))]

  def _predict_windows(
    self, padded: np.ndarray, corners: list[Shape], mean: float, sd: float
  ) -> Iterator[tuple[Shape, np.ndarray]]:
    """Yields the corner and the probabilities of each window."""
    # One window behind: the device computes the next one while the host adds this one up.
    pending: tuple[Shape, jax.Array] | None = None
    for corner in show_progress(corners, len(corners), "windows"):
      where = tuple(slice(c, c + n) for c, n in zip(corner, self._patch, strict=True))
      with self._announce_first_window():
        ahead = (corner, self.window(self.variables, padded[where], mean, sd))
      if pending:
        yield pending[0], np.asarray(pending[1])
      pending = ahead
    assert pending is not None
    yield pending[0], np.asarray(pending[1])


def _pad_volume(hu: np.ndarray, inner: Shape, margin: Shape) -> tuple[np.ndarray, Shape]:
  """Pads a volume to a window (with its minimum) and by the margin (with its border).

  Returns:
    the padded volume, and the volume's start in it without the margin.
  """
  missing = [max(0, i - n) for n, i in zip(hu.shape, inner, strict=True)]
  low = ((missing[0] + 1) // 2, (missing[1] + 1) // 2, (missing[2] + 1) // 2)
  grown = np.pad(
    hu, [(a, m - a) for a, m in zip(low, missing, strict=True)], constant_values=hu.min()
  )
  # The margin is only looked at, and repeats the border so that no edge appears there.
  return np.pad(grown, [(m, m) for m in margin], mode="edge"), low


def window_starts(extent: Shape, window: Shape, overlap: float) -> list[list[int]]:
  """Returns the starts of windows for each axis, evenly spaced from 0 to extent - window."""
  starts = []
  for n, size in zip(extent, window, strict=True):
    # As few windows as reach the overlap; spreading them evenly then enlarges it a little.
    room = n - size
    count = math.ceil(room / max(1, size * (1 - overlap))) + 1
    starts.append([round(i * room / max(1, count - 1)) for i in range(count)])
  return starts


def gaussian_weights(window: Shape) -> np.ndarray:
  """Returns Gaussian weights `[X, Y, Z, 1]`, float32: 1 in the centre, sd window / 8."""
  axes = []
  for n in window:
    distance = (np.arange(n) - (n - 1) / 2) / (n / 8)
    axes.append(np.exp(-0.5 * distance**2))
  weights = axes[0][:, None, None] * axes[1][:, None] * axes[2]
  # Never below 1e-3, since a corner that only one window covers is divided by its weight.
  result: np.ndarray = np.maximum(weights, 1e-3).astype(np.float32)[..., None]
  return result
