r"""Convolutions of the paper's network, XLA's own and with packed voxels, forward and backward.

  python -m benchmarks.conv_forms --dtype=bfloat16 --output=benchmarks/results/conv_forms.json

For a GPU: how many voxels `models/conv.py` packs was chosen by it. Two patches of 160x160x96; each
form is compiled by itself and called several times in a row, in turn with the others.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from attn_unet_jax.compilation import keep_channels_last
from attn_unet_jax.models.conv import conv3d
from attn_unet_jax.models.packed_conv import packed_conv3d, packed_kernel_gradient
from attn_unet_jax.run import environment
from benchmarks.contenders import digits
from benchmarks.result import keep, machine

FINEST, SECOND, THIRD = (160, 160, 96), (80, 80, 48), (40, 40, 24)
SHAPES = (  # grid, channels, features
  (FINEST, 1, 16), (FINEST, 16, 16), (FINEST, 48, 16),
  (SECOND, 16, 32), (SECOND, 32, 32), (SECOND, 96, 32), (THIRD, 64, 64),
)  # fmt: skip
_PADS = ((1, 1),) * 3

_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "compute type")
_VOXELS = flags.DEFINE_list("voxels", ["1", "2", "4", "8"], "voxels of a pack; 1: XLA's own")
_BATCH = flags.DEFINE_integer("batch", 2, "patches")
_SHRINK = flags.DEFINE_integer("shrink", 1, "the grids' sizes are divided by this")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed rows of calls of each form")
_CALLS = flags.DEFINE_integer("calls", 12, "calls in a row")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")

Work = Callable[[], Any]


def works(x: jax.Array, kernel: jax.Array, g: jax.Array, voxels: int) -> dict[str, Work]:
  """The convolution and its two gradients, compiled; the input's is a convolution like it."""
  flipped = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
  own = functools.partial(conv3d, form="native")
  packed = functools.partial(packed_conv3d, pads=_PADS, count=voxels)
  convolve = own if voxels == 1 else packed

  def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    if voxels > 1:
      return packed_kernel_gradient(x, g, kernel, _PADS, voxels)
    return jax.vjp(lambda k: own(x, k), kernel)[1](g)[0]

  def input_gradient(g: jax.Array) -> jax.Array:
    return convolve(g, flipped) if voxels > 1 else jax.vjp(lambda x: own(x, kernel), x)[1](g)[0]

  return {
    "forward": _compiled(convolve, x, kernel),
    "input_gradient": _compiled(input_gradient, g),
    "kernel_gradient": _compiled(kernel_gradient, x, g),
  }


def _compiled(function: Callable[..., jax.Array], *given: jax.Array) -> Work:
  program = jax.jit(function).lower(*given).compile()
  return lambda: program(*given)


def milliseconds(work: Work, calls: int) -> float:
  """Of one call, of several that are queued."""
  jax.block_until_ready(work())
  began = time.perf_counter()
  for _ in range(calls):
    out = work()
  jax.block_until_ready(out)
  return 1e3 * (time.perf_counter() - began) / calls


def measure(grid: Sequence[int], channels: int, features: int) -> list[dict[str, Any]]:
  """Medians of every form, in turn."""
  draw = np.random.default_rng(0)

  def normal(*shape: int) -> jax.Array:
    return jnp.asarray(draw.normal(size=shape), _DTYPE.value)

  x, g = (normal(_BATCH.value, *grid, n) for n in (channels, features))
  kernel = normal(3, 3, 3, channels, features) / 20
  packs = [n for n in map(int, _VOXELS.value) if grid[2] % n == 0]
  forms = {n: works(x, kernel, g, n) for n in packs}
  times: dict[tuple[int, str], list[float]] = {
    (n, name): [] for n in forms for name in forms[n] if channels > 1 or name != "input_gradient"
  }
  for _ in range(_REPEATS.value):
    for (n, name), found in times.items():
      found.append(milliseconds(forms[n][name], _CALLS.value))
  return [
    {"grid": list(grid), "channels": channels, "features": features, "voxels": n}
    | {f"{name}_ms": digits(statistics.median(t)) for (m, name), t in times.items() if m == n}
    for n in packs
  ]


def main(argv: list[str]) -> None:
  """Measure, print and write."""
  del argv
  keep_channels_last()
  rows = []
  for grid, channels, features in SHAPES:
    found = measure([n // _SHRINK.value for n in grid], channels, features)
    print(*found, sep="\n", flush=True)
    rows += found
  result = {"machine": machine(), "environment": environment(), "dtype": _DTYPE.value}
  keep(result | {"batch": _BATCH.value, "convolutions": rows}, _OUTPUT.value)


if __name__ == "__main__":
  app.run(main)
