"""Slides a network over a working-grid volume, in overlapping windows with Gaussian weights."""

import copy
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.plan import WindowPlan, find_origin
from attn_unet_jax.inference.planner import WindowPlanner
from attn_unet_jax.patches.batch import normalise_intensity, output_shape
from attn_unet_jax.runtime.console import format_duration, print_line, show_progress
from attn_unet_jax.runtime.deadline import check_deadline
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import acknowledge_signals
from attn_unet_jax.volumes.intensity import IntensityStatistics, measure_intensity
from attn_unet_jax.volumes.volume import Volume

Shape = tuple[int, int, int]

_WORTH_SAYING_S = 10.0


class SegmentationSystem(Protocol):
  """A system that segments volumes: a network in sliding windows, or several stages."""

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`, of a working-grid volume in HU.

    The array is new, and its caller may change it.
    """


class WindowEngine(Protocol):
  """What computes the windows of a network instead of JAX."""

  def prepare(self, shape: Shape) -> int:
    """Compiles the network for a window, if it is not yet, and returns the bytes that it takes."""

  def predict(self, hu: np.ndarray, mean: Any, sd: Any) -> np.ndarray:
    """Returns probabilities, float32 `[X', Y', Z', K]`, of a window in HU `[X, Y, Z]`."""


class SlidingWindow:
  """A compiled network that moves over a volume, window by window.

  The windows are those of a `WindowPlanner`. Where they overlap their probabilities are averaged
  with a Gaussian weight (sd an eighth of the window), so that no seams appear. Where there is none,
  in the air around the body, all is background.

  A network whose loss weighs class k by w[k] learns p[k] ~ w[k] P(k | image). With w as
  `inference.class_weights` a window's probabilities are p[k] / w[k], scaled to sum to 1: two
  classes are then equally likely at 0.5. (Elkan 2001: cost-sensitive learning, theorem 2.)

  Attributes:
    variables: the current parameters.
    predict_windows: a function from `(variables, HU [N, X, Y, Z], mean, sd)` to probabilities
      `[N, X', Y', Z', K]`.
    window: the same of one window, without N, compiled.
  """

  def __init__(self, recipe: PredictionRecipe, module: nn.Module, *, announce: bool = False):
    """Compiles nothing yet.

    Args:
      recipe: the options of the prediction.
      module: the network.
      announce: whether a line on the screen says what the windows are, whenever they change.
    """
    self._planner = WindowPlanner(recipe, module)
    self._margin: Shape = module.output_margin
    # The values where there is no window: class 0 is the background.
    self._outside = np.eye(1, module.num_classes, dtype=np.float32)[0]
    self._announces = announce
    self._networks = 1  # with those that share what is compiled
    shift = -np.log(np.array(recipe.inference.class_weights or [1.0], np.float32))
    self.variables: Any = None
    self._engine: WindowEngine | None = None
    # By the shape of a window, the bytes that it takes.
    self._compiled: dict[Shape, int] = {}
    self._announced: Shape | None = None

    def predict_windows(variables: Any, hu: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
      """Returns the probabilities of windows in HU."""
      image = normalise_intensity(recipe.data, hu, mean, sd)[..., None]
      logits, _ = module.apply(variables, image, train=False)
      # Subtracting log w from the logits divides the probabilities by w and rescales them.
      return jax.nn.softmax(logits.astype(jnp.float32) + shift)

    def predict_window(variables: Any, hu: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
      """Returns the probabilities of one window."""
      return predict_windows(variables, hu[None], mean, sd)[0]

    self.predict_windows = predict_windows
    self.window = jax.jit(predict_window)

  def use(self, variables: Any) -> "SlidingWindow":
    """Sets the parameters and returns this object."""
    # They are an argument of the compiled window, so that it serves every checkpoint.
    self.variables = variables
    return self

  def share(self, variables: Any) -> "SlidingWindow":
    """Returns another one for other parameters of the same network, of which it compiles nothing.

    It announces nothing either: its windows are those of this one, which says how long both take.
    """
    other = copy.copy(self).use(variables)
    other._announces = False
    self._networks += 1
    return other

  def use_engine(self, engine: WindowEngine | None) -> None:
    """Sets what computes the windows of `predict`; None: JAX."""
    self._engine = engine

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`, in a few such arrays of host memory.

    Raises:
      UserError: the device's memory holds no window that is small enough for the network.
    """
    # Of the scan before padding, as in training, where a case is measured when it is prepared.
    intensity = measure_intensity(volume.array)
    part, plan = self._planner.plan_scan(volume, self._compile)
    while True:
      is_announced = self._announces and self._announce_plan(plan, volume)
      try:
        return self._blend(volume.array, part, plan, intensity, is_announced)
      except jax.errors.JaxRuntimeError as error:
        # Only large windows are planned by what memory is free, and that may be taken since.
        if "RESOURCE_EXHAUSTED" not in str(error):
          raise
        said = f"windows of {_times(plan.window)} voxels do not fit into the device's memory"
        smaller = self._planner.plan_smaller(part, plan)
        if smaller.window == plan.window:
          raise UserError(
            f"{said}, and this run takes no smaller ones; end what else is on the device, or "
            "compute on the processor by JAX_PLATFORMS=cpu"
          ) from error
        print_line(said)
        plan = smaller

  def _compile(self, shape: Shape) -> int:
    """Compiles the network for a window, if it is not yet, and returns the bytes that it takes."""
    if self._engine:
      return self._engine.prepare(shape)
    if shape not in self._compiled:
      with acknowledge_signals("compiling the network"):
        # The type of scans on their working grid: of another one there would be another program.
        hu = jax.ShapeDtypeStruct(shape, np.int16)
        # The call that follows finds this program, and does not compile it again.
        held = self.window.lower(self.variables, hu, 0.0, 1.0).compile().memory_analysis()
      self._compiled[shape] = held.temp_size_in_bytes + held.output_size_in_bytes if held else 0
    return self._compiled[shape]

  def _announce_plan(self, plan: WindowPlan, volume: Volume) -> bool:
    """Says what the windows are; returns False where they are those of the last scan."""
    if plan.window == self._announced:
      return False
    self._announced = plan.window
    times = plan.voxels / math.prod(volume.shape)
    print_line(
      f"windows of {_times(plan.window)} voxels: {plan.windows} in a scan of "
      f"{_times(volume.shape)}, {times:.2g} times its voxels; "
      f"{self._compile(plan.window) / 2**30:.2g} GiB a window"
    )
    return True

  def _blend(
    self,
    hu: np.ndarray,
    part: tuple[slice, slice, slice],
    plan: WindowPlan,
    intensity: IntensityStatistics,
    is_announced: bool,
  ) -> np.ndarray:
    """Averages the probabilities of all windows; the rest of the scan is background.

    If they were announced, a line says after the first two of them how long all will take.
    """
    origin = find_origin(part, plan, hu.shape, self._planner.unit)
    area = tuple(slice(a, a + n) for a, n in zip(origin, plan.extent, strict=True))
    end = (area[0].stop, area[1].stop, area[2].stop)
    padded, low = _pad_volume(hu, self._planner.find_least_extent(plan), end, self._margin)
    grid = output_shape(padded.shape, self._margin)
    total = np.empty((*grid, self._outside.size), np.float32)
    total[...] = self._outside
    inside = total[area]  # a view: sums are added up in place
    inside[...] = 0
    weights = gaussian_weights(plan.inner)
    began = time.monotonic()
    for index, (corner, probabilities) in enumerate(
      self._predict_windows(padded, origin, plan, intensity)
    ):
      # From one answer to the next: the first one also waits for the second to be asked for.
      if is_announced and index == 1:
        _announce_time(time.monotonic() - began, plan.windows, self._networks)
      began = time.monotonic()
      where = tuple(slice(c, c + n) for c, n in zip(corner, plan.inner, strict=True))
      inside[where] += probabilities * weights
    for plane, weight in zip(inside, _sum_weights(plan, weights), strict=True):
      plane /= weight
    return total[tuple(slice(a, a + n) for a, n in zip(low, hu.shape, strict=True))]

  def _predict_windows(
    self, padded: np.ndarray, origin: Shape, plan: WindowPlan, intensity: IntensityStatistics
  ) -> Iterator[tuple[Shape, np.ndarray]]:
    """Yields the corner, from the origin, and the probabilities of each window."""
    # Corners in the output; the input of a window starts there too, but is larger by the margin.
    corners = [(x, y, z) for x in plan.starts[0] for y in plan.starts[1] for z in plan.starts[2]]
    # One window behind: the device computes the next one while the host adds this one up.
    pending: tuple[Shape, jax.Array | np.ndarray] | None = None
    for corner in show_progress(corners, len(corners), "windows"):
      # Between windows, since a compiled call cannot be broken off.
      check_deadline()
      where = tuple(
        slice(a + c, a + c + n) for a, c, n in zip(origin, corner, plan.window, strict=True)
      )
      ahead = (corner, self._predict_window(padded[where], intensity))
      if pending:
        yield pending[0], np.asarray(pending[1])
      pending = ahead
    assert pending is not None
    yield pending[0], np.asarray(pending[1])

  def _predict_window(
    self, hu: np.ndarray, intensity: IntensityStatistics
  ) -> jax.Array | np.ndarray:
    if self._engine:
      return self._engine.predict(hu, *intensity)
    answer: jax.Array = self.window(self.variables, hu, *intensity)
    return answer


def _announce_time(seconds: float, windows: int, networks: int) -> None:
  """Says how long so many windows of each network take, by the seconds of one; not if short."""
  by = f" by {networks} networks" if networks > 1 else ""
  if (whole := seconds * windows * networks) >= _WORTH_SAYING_S:
    print_line(f"a window takes {seconds:.3g} s: the scan{by} about {format_duration(whole)}")


def _pad_volume(
  hu: np.ndarray, least: Shape, end: Shape, margin: Shape
) -> tuple[np.ndarray, Shape]:
  """Pads a volume for its windows.

  Args:
    hu: the volume [X, Y, Z].
    least: what it is padded to evenly, by its minimum, as in training.
    end: where the last answers end; up to there, and by the margin, its border is repeated.
    margin: what the network sees beyond its answer.

  Returns:
    the padded volume, the same one if nothing is missing; and the volume's start in it without the
    margin.
  """
  missing = [max(0, i - n) for n, i in zip(hu.shape, least, strict=True)]
  low = ((missing[0] + 1) // 2, (missing[1] + 1) // 2, (missing[2] + 1) // 2)
  evenly = [(a, m - a) for a, m in zip(low, missing, strict=True)]
  grown = np.pad(hu, evenly, constant_values=hu.min()) if any(missing) else hu
  # The border, so that no edge appears in what is only looked at.
  beyond = [(m, m + max(0, last - n)) for m, n, last in zip(margin, grown.shape, end, strict=True)]
  return (np.pad(grown, beyond, mode="edge") if np.any(beyond) else grown), low


def _sum_weights(plan: WindowPlan, weights: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the summed weights of all windows, [Y, Z, 1], for each plane across X of the extent.

  Every voxel is covered by a window, so that none is zero.
  """
  # Plane by plane: for the whole scan they would be 4 bytes a voxel.
  (length, *across), (n, n_y, n_z) = plan.extent, plan.inner
  x_starts, y_starts, z_starts = plan.starts
  for x in range(length):
    total = np.zeros((*across, 1), np.float32)
    for own in (weights[x - start] for start in x_starts if start <= x < start + n):
      for y, z in itertools.product(y_starts, z_starts):
        total[y : y + n_y, z : z + n_z] += own
    yield total


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


def _times(shape: Shape) -> str:
  return "x".join(map(str, shape))
