"""The work of `conv_forms`: one 3x3x3 convolution in each form, forward and backward."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models.ops.conv import conv3d
from attn_unet_jax.models.ops.packed_conv import kernel_gradient_by_packs, packed_conv3d
from benchmarks.contenders import digits

_PADS = ((1, 1),) * 3

Work = Callable[[], Any]


class Convolution(NamedTuple):
  """What is convolved: grid [X, Y, Z], and channels of the input and the output."""

  grid: tuple[int, ...]
  channels: int
  features: int


def works(x: jax.Array, kernel: jax.Array, g: jax.Array, voxels: int) -> dict[str, Work]:
  """The convolution and its two gradients, compiled; `voxels` of a pack, 1: XLA's own form."""
  own = functools.partial(conv3d, form="native")
  packed = functools.partial(packed_conv3d, pads=_PADS, count=voxels)
  flipped = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)

  def own_input_gradient(g: jax.Array) -> jax.Array:
    return jax.vjp(lambda x: own(x, kernel), x)[1](g)[0]

  def own_kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    return jax.vjp(lambda k: own(x, k), kernel)[1](g)[0]

  def packed_kernels_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    return kernel_gradient_by_packs(x, g, kernel, _PADS, voxels)

  def packed_input_gradient(g: jax.Array) -> jax.Array:
    return packed(g, flipped)

  alone = voxels == 1
  return {
    "forward": _compile_work(own if alone else packed, x, kernel),
    "input_gradient": _compile_work(own_input_gradient if alone else packed_input_gradient, g),
    "kernel_gradient": _compile_work(
      own_kernel_gradient if alone else packed_kernels_gradient, x, g
    ),
  }


def _compile_work(function: Callable[..., jax.Array], *given: jax.Array) -> Work:
  program = jax.jit(function).lower(*given).compile()
  return lambda: program(*given)


def measure(
  what: Convolution, dtype: str, batch: int, voxels: Sequence[int], repeats: int, calls: int
) -> list[dict[str, Any]]:
  """Median milliseconds of every form whose packs fit, measured in turn; the image's gradient not.

  Args:
    what: the convolution.
    dtype: of all.
    batch: patches.
    voxels: of a pack, by form.
    repeats: rows of calls of each work.
    calls: of a row, queued.
  """
  draw = np.random.default_rng(0)

  def normal(*shape: int) -> jax.Array:
    return jnp.asarray(draw.normal(size=shape), dtype)

  x, g = (normal(batch, *what.grid, n) for n in (what.channels, what.features))
  kernel = normal(3, 3, 3, what.channels, what.features) / 20
  forms = {n: works(x, kernel, g, n) for n in voxels if what.grid[2] % n == 0}
  if what.channels == 1:
    forms = {n: {k: w for k, w in own.items() if k != "input_gradient"} for n, own in forms.items()}
  times: dict[int, dict[str, list[float]]] = {n: {k: [] for k in forms[n]} for n in forms}
  for _ in range(repeats):
    for n, own in forms.items():
      for name, work in own.items():
        times[n][name].append(_milliseconds(work, calls))
  return [
    {**what._asdict(), "voxels": n}
    | {f"{name}_ms": digits(statistics.median(t)) for name, t in found.items()}
    for n, found in times.items()
  ]


def _milliseconds(work: Work, calls: int) -> float:
  """Of one call."""
  jax.block_until_ready(work())
  began = time.perf_counter()
  for _ in range(calls):
    out = work()
  jax.block_until_ready(out)
  return 1e3 * (time.perf_counter() - began) / calls
