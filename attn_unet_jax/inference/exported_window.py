"""Exports a window of one network or several as StableHLO, which JAX runs without this package."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import export

from attn_unet_jax.inference.run_exported import declare_inputs
from attn_unet_jax.inference.sliding import Shape, SlidingWindow

PLATFORMS = ("cpu", "cuda", "tpu")


def export_window(
  systems: Sequence[SlidingWindow], window: Shape, *, uses_statistics: bool
) -> export.Exported:
  """Exports what systems say about windows, with normalisation and parameters inside.

  The exported function maps HU float32 `[N, X, Y, Z]` and, with `uses_statistics`, mean and sd of
  the scan, float32 `[]`, to class probabilities float32 `[N, X', Y', Z', K]`, for any N. Those of
  several systems are averaged as in `EnsembleSystem`.

  Args:
    systems: with parameters; one or more, with the same classes and margin.
    window: X, Y, Z.
    uses_statistics: whether mean and sd are inputs.
  """

  def predict_windows(hu: jax.Array, *statistics: jax.Array) -> jax.Array:
    """Returns the probabilities of windows by all systems together."""
    # Behind the barrier they are no constants to the compiler, which would spend minutes on sums
    # of them that take no time on the device.
    variables = jax.lax.optimization_barrier([system.variables for system in systems])

    def predict_window(one: jax.Array) -> jax.Array:
      """Returns the probabilities of one window, for `map`."""
      # Without a z-score, mean and sd are not read.
      about = statistics or (0.0, 1.0)
      pairs = zip(systems, variables, strict=True)
      return average_values(system.window(values, one, *about) for system, values in pairs)

    # One after the other, since the forms of convolution are chosen by a number of voxels, which
    # must be known.
    answers: jax.Array = jax.lax.map(predict_window, hu)
    return answers

  # The inputs stay those that are declared, whatever the network makes of them.
  jitted = jax.jit(predict_windows, keep_unused=True)
  return export.export(jitted, platforms=PLATFORMS)(
    *declare_inputs(window, uses_statistics=uses_statistics)
  )


def average_values(values: Iterable[jax.Array]) -> jax.Array:
  """Averages arrays as `EnsembleSystem` does, one after the other."""
  rest = iter(values)
  average = next(rest)
  for count, value in enumerate(rest, 2):
    average += (value - average) * jnp.float32(1 / count)
  return average
