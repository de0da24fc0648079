"""3-D convolution: the one place that decides how it is computed.

Five forms of the same sum, `y[p] = sum_t x[p*stride + t - pad] . kernel[t]`:

- `native`: `lax.conv_general_dilated`, right on TPU and slow on XLA's CPU backend.
- `packed`: the same with neighbouring voxels along Z as channels of one (`packed_conv.py`), up to
  2.5 times as fast on a GPU where channels are few.
- `planes`: XLA's CPU backend is fast at 2-D convolutions, and a 3-D convolution is a sum of them
  over the kernel's planes along X.
- `winograd`: minimal filtering F(4, 3) along X (Winograd 1980; Lavin and Gray 2016,
  arXiv:1509.09308): four output planes from six 2-D convolutions instead of twelve.
- `onednn`: oneDNN's own on the CPU, by a package that need not be there (`onednn_conv.py`).

`auto` takes `winograd` on the CPU or, where that does not fit or does not pay, `planes`; `packed`
on CUDA, and elsewhere `native`. The platform is the one that the program is lowered for, not the
one it is traced on. `onednn` is `auto` on other platforms and for types that the processor does not
multiply. `planes` and `winograd` slice along X: a program that divides X over devices uses
`divided`, which is `packed` on CUDA and else `native`.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn_unet_jax.models.ops.onednn_conv import (
  can_use_onednn,
  convolve_by_onednn,
  onednn_gradients,
)
from attn_unet_jax.models.ops.packed_conv import kernel_gradient_by_packs, packed_conv3d
from attn_unet_jax.models.ops.single import single_dilation

Form = Literal["auto", "divided", "native", "onednn", "packed", "planes", "winograd"]
FORMS: tuple[Form, ...] = ("auto", "divided", "native", "onednn", "packed", "planes", "winograd")
_BY_PLATFORM = ("auto", "divided", "onednn")
Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], ...]

# F(4, 3) with interpolation points 0, 1, -1, 2, -2 and infinity: out = A'[(G k) * (B' d)].
_B = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_FEWEST_VOXELS = 512  # below this, transforming the kernel costs more than winograd saves
# The most channels that packed voxels may have together, in general and if a voxel has one channel:
# the fastest that was measured (docs/reference/gpu.md), or within a seventh of it.
_MOST_CHANNELS, _MOST_OF_IMAGE = 96, 128


def conv3d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: Sequence[int] = (1, 1, 1),
  padding: Literal["SAME", "VALID"] = "SAME",
  form: Form = "auto",
) -> jax.Array:
  """Convolves in three dimensions (a cross-correlation, as in every network library).

  Args:
    x: input [N, X, Y, Z, C].
    kernel: weights [kx, ky, kz, C, D], of x's type.
    strides: step along X, Y and Z.
    padding: `SAME` (output grid is the input's over the stride, rounded up) or `VALID`.
    form: see the module's docstring. Only 3x3x3 kernels at stride 1 take `winograd`, others take
      `planes`. `packed` is `native` at other strides, and where too many channels or an odd Z
      leave nothing to pack.

  Returns:
    [N, X', Y', Z', D], of x's type.

  Raises:
    ValueError: an unknown form.
    UserError: `onednn` without its package.
  """
  size, steps = kernel.shape[:3], (strides[0], strides[1], strides[2])
  if form not in FORMS:
    raise ValueError(f"form is {form!r}: it must be one of {', '.join(FORMS)}")
  if form == "winograd" and not _can_use_winograd(size, steps):
    form = "planes"
  if rate := single_dilation():
    return _convolve_single(x, kernel, steps, padding, rate)
  # As numbers from here on: the gradients below need paddings that no word names.
  pads = tuple(lax.padtype_to_pads(x.shape[1:4], size, steps, padding))
  # `native` is what tests and benchmarks compare with, so it takes none of the ways below.
  if form == "native":
    return _convolve_native(x, kernel, steps, pads)
  # Two kinds of convolution are plain matrix products: 1x1x1, and windows that do not overlap.
  if size == (1, 1, 1):
    return x[:, :: steps[0], :: steps[1], :: steps[2]] @ kernel[0, 0, 0]
  if size == steps and not any(map(sum, pads)) and not any(map(int.__mod__, x.shape[1:4], size)):
    return _space_to_depth(x, size) @ kernel.reshape(-1, kernel.shape[-1])
  return _conv_in_form(x, kernel, steps, pads, form)


def _can_use_winograd(size: Sequence[int], strides: Triple) -> bool:
  """Returns whether F(4, 3) computes a kernel of this size at these strides."""
  return tuple(size) == (3, 3, 3) and strides == (1, 1, 1)


def _space_to_depth(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Moves voxels to channels, [N, X, Y, Z, C] to [N, X/a, Y/b, Z/c, abc C]."""
  n, X, Y, Z, channels = x.shape
  a, b, c = size
  blocks = x.reshape(n, X // a, a, Y // b, b, Z // c, c, channels)
  return blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, X // a, Y // b, Z // c, -1)


def _convolve_native(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> jax.Array:
  layout = ("NXYZC", "XYZIO", "NXYZC")
  return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


def _convolve_single(
  x: jax.Array, kernel: jax.Array, strides: Triple, padding: Literal["SAME", "VALID"], rate: int
) -> jax.Array:
  """Convolves by one operation, dilated by a rate, see `single`."""
  layout, rates = ("NXYZC", "XYZIO", "NXYZC"), (rate,) * 3
  return lax.conv_general_dilated(
    x, kernel, strides, padding, rhs_dilation=rates, dimension_numbers=layout
  )


def _convolve_packed(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> jax.Array:
  count = _count_packed_voxels(x, kernel, strides, pads)
  if count == 1:
    return _convolve_native(x, kernel, strides, pads)
  return packed_conv3d(x, kernel, pads, count)


def _count_packed_voxels(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> int:
  """Counts the voxels along Z that become one: a power of two that divides the output; 1: none."""
  size, channels, features = kernel.shape[2:]
  if strides != (1, 1, 1) or size < 3:
    return 1
  most = (_MOST_OF_IMAGE if channels == 1 else _MOST_CHANNELS) // max(channels, features)
  length = max(x.shape[3] + sum(pads[2]) - size + 1, 1)
  # Packs must divide the output evenly: the largest power of two that does, up to `most`.
  return math.gcd(length, 2 ** (max(most, 1).bit_length() - 1))


def _conv2d(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]
) -> jax.Array:
  """Convolves every X plane in two dimensions: x [N, X, Y, Z, C], kernel [ky, kz, C, D]."""
  planes = x.reshape(-1, *x.shape[2:])
  y = lax.conv_general_dilated(
    planes, kernel, strides, pads, dimension_numbers=("NYZC", "YZIO", "NYZC")
  )
  return y.reshape(*x.shape[:2], *y.shape[1:])


def _conv2d_kernel_gradient(
  x: jax.Array, g: jax.Array, size: Sequence[int], pads: Sequence[tuple[int, int]]
) -> jax.Array:
  """Computes the gradient of `_conv2d` at stride 1 in its kernel, [ky, kz, C, D].

  It is a matrix product over all voxels for each tap of both. Of x or g the narrower one, shifted
  by each tap of its axis, becomes one matrix, so that there are as many products as the other one
  has taps, and little is copied. XLA's own form of this gradient reaches a tenth of the processor's
  speed.

  Args:
    x: input [N, X, Y, Z, C].
    g: cotangent of the output [N, X, Y', Z', D].
    size: ky, kz.
    pads: along Y and Z.
  """
  (ky, kz), (low, high) = size, pads[0]
  x = _pad_axis(x, 3, pads[1])
  g = _pad_axis(g, 2, (ky - 1 - low, ky - 1 - high))
  # Each is written once. Otherwise XLA makes one loop of pads and joins, that asks for each number
  # which of them it is from, at a quarter of the pace.
  x, g = lax.optimization_barrier((x, g))
  channels, features = x.shape[-1], g.shape[-1]
  columns = _slice_taps(x, 3, kz)
  shifted = _slice_taps(g, 2, ky)[::-1]
  if channels < features:
    joined = _join_columns(columns)
    parts = jnp.stack([joined.T @ _to_rows(one) for one in shifted])
    return parts.reshape(ky, kz, channels, features)
  joined = _join_columns(shifted)
  parts = jnp.stack([_to_rows(one).T @ joined for one in columns])
  return parts.reshape(kz, channels, ky, features).transpose(2, 0, 1, 3)


def _pad_axis(x: jax.Array, axis: int, pad: tuple[int, int]) -> jax.Array:
  return jnp.pad(x, [pad if i == axis else (0, 0) for i in range(x.ndim)])


def _slice_taps(x: jax.Array, axis: int, taps: int) -> list[jax.Array]:
  """Returns the part of a padded x that each tap of a kernel along an axis sees."""
  length = x.shape[axis] - taps + 1
  return [lax.slice_in_dim(x, tap, tap + length, axis=axis) for tap in range(taps)]


def _to_rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])


def _join_columns(parts: Sequence[jax.Array]) -> jax.Array:
  """Joins the channels of arrays to the rows of one matrix [voxels, channels of all]."""
  return _to_rows(lax.optimization_barrier(jnp.concatenate(parts, axis=-1)))


def _convolve_planes(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> jax.Array:
  x = jnp.pad(x, ((0, 0), pads[0], (0, 0), (0, 0), (0, 0)))
  reach = x.shape[1] - kernel.shape[0] + 1
  planes = [
    _conv2d(x[:, i : i + reach : strides[0]], kernel[i], strides[1:], pads[1:])
    for i in range(kernel.shape[0])
  ]
  return functools.reduce(operator.add, planes)


def _combine_terms(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
  """Sums weights[i] * terms[i] without the terms of weight 0."""
  # 14 of the 36 weights of _B are 0, and each term costs the read of a whole array.
  parts = [jnp.asarray(w, t.dtype) * t for w, t in zip(weights, terms, strict=True) if w]
  return functools.reduce(operator.add, parts)


def _widen_arrays(*arrays: jax.Array) -> list[jax.Array]:
  """Widens the arrays to float32 at least."""
  # The sums of the transforms cancel, which would cost bfloat16 four bits.
  return [a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]


def _input_transform(x: jax.Array, pad: tuple[int, int], tiles: int) -> list[jax.Array]:
  """Transforms windows of six X planes, four apart, to six arrays [N, tiles, Y, Z, C]."""
  room = 4 * (tiles + 1) - x.shape[1] - pad[0]
  x = jnp.pad(x, ((0, 0), (pad[0], room), (0, 0), (0, 0), (0, 0)))
  blocks = x.reshape(x.shape[0], tiles + 1, 4, *x.shape[2:])
  window = [blocks[:, :-1, j] for j in range(4)] + [blocks[:, 1:, j] for j in range(2)]
  return [_combine_terms(row, window) for row in _B]


def _convolve_winograd(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> jax.Array:
  del strides  # 1, see _can_use_winograd
  length = x.shape[1] + sum(pads[0]) - 2
  tiles = -(-length // 4)
  dtype, (x, kernel) = x.dtype, _widen_arrays(x, kernel)
  kernels = [_combine_terms(row, list(kernel)) for row in _G]
  products = [
    _conv2d(d, u, (1, 1), pads[1:])
    for d, u in zip(_input_transform(x, pads[0], tiles), kernels, strict=True)
  ]
  # Tiles hold four planes each: the planes beyond the output are cut off.
  y = jnp.stack([_combine_terms(row, products) for row in _A], axis=2)
  return y.reshape(y.shape[0], 4 * tiles, *y.shape[3:])[:, :length].astype(dtype)


def _winograd_kernel_gradient(
  x: jax.Array, g: jax.Array, kernel: jax.Array, pads: Pads
) -> jax.Array:
  """Computes the transpose of `_convolve_winograd` in the kernel, by six 2-D gradients."""
  tiles = -(-g.shape[1] // 4)
  dtype, (x, g, kernel) = kernel.dtype, _widen_arrays(x, g, kernel)
  # Zeros fill up the last tile: they add nothing to a gradient.
  g = jnp.pad(g, ((0, 0), (0, 4 * tiles - g.shape[1]), (0, 0), (0, 0), (0, 0)))
  blocks = g.reshape(g.shape[0], tiles, 4, *g.shape[2:])
  outputs = [_combine_terms(column, [blocks[:, :, i] for i in range(4)]) for column in _A.T]
  inputs = _input_transform(x, pads[0], tiles)
  # One by one: joined to one array, the six would be written once more, number by number.
  products = [
    _conv2d_kernel_gradient(d, o, kernel.shape[1:3], pads[1:])
    for d, o in zip(inputs, outputs, strict=True)
  ]
  return jnp.stack([_combine_terms(column, products) for column in _G.T]).astype(dtype)


_COMPUTE: dict[str, Callable[..., jax.Array]] = {
  "native": _convolve_native,
  "onednn": convolve_by_onednn,
  "packed": _convolve_packed,
  "planes": _convolve_planes,
  "winograd": _convolve_winograd,
}


def _choose_cpu_form(x: jax.Array, kernel: jax.Array, strides: Triple) -> Form:
  """Chooses the faster CPU form for these shapes, as measured (benchmarks/network_speed.py)."""
  voxels = x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]
  # On one or two planes most of a tile of four outputs would be thrown away.
  pays = voxels >= _FEWEST_VOXELS and x.shape[1] > 2
  return "winograd" if pays and _can_use_winograd(kernel.shape[:3], strides) else "planes"


def _compute_by_platform(
  compute: Callable[..., Any], arrays: Sequence[jax.Array], strides: Triple, pads: Pads, form: Form
) -> Any:
  """Calls `compute` in the form that one of `_BY_PLATFORM` is where the program is lowered for."""
  forms: dict[str, Form] = {"cuda": "packed", "default": "native"}
  if form == "onednn" and can_use_onednn(arrays[0].dtype):
    forms["cpu"] = "onednn"
  elif form != "divided":  # the CPU's forms slice along X, the axis that devices divide there
    forms["cpu"] = _choose_cpu_form(arrays[0], arrays[1], strides)
  # Decided at lowering, not here: a program may be lowered for another platform than this one.
  branches = {
    platform: functools.partial(compute, strides=strides, pads=pads, form=taken)
    for platform, taken in forms.items()
  }
  return lax.platform_dependent(*arrays, **branches)


def _compute_output(
  x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, form: Form
) -> jax.Array:
  if form in _BY_PLATFORM:
    result: jax.Array = _compute_by_platform(_output_in_form, (x, kernel), strides, pads, form)
    return result
  return _output_in_form(x, kernel, strides, pads, form)


def _compute_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array, strides: Triple, pads: Pads, form: Form
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradients of `_compute_output` in x and the kernel, for the cotangent g."""
  if form in _BY_PLATFORM:
    result: tuple[jax.Array, jax.Array] = _compute_by_platform(
      _gradients_in_form, (x, kernel, g), strides, pads, form
    )
    return result
  return _gradients_in_form(x, kernel, g, strides, pads, form)


def _output_in_form(
  x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, form: Form
) -> jax.Array:
  return _COMPUTE[form](x, kernel, strides, pads)


def _gradients_in_form(
  x: jax.Array, kernel: jax.Array, g: jax.Array, strides: Triple, pads: Pads, form: Form
) -> tuple[jax.Array, jax.Array]:
  if form == "onednn":
    return onednn_gradients(x, kernel, g, strides, pads)
  count = _count_packed_voxels(x, kernel, strides, pads) if form == "packed" else 1
  if form != "winograd" and count == 1:
    result: tuple[jax.Array, jax.Array] = jax.vjp(
      functools.partial(_COMPUTE[form], strides=strides, pads=pads), x, kernel
    )[1](g)
    return result
  # At stride 1 the input's gradient is the convolution with the flipped kernel, so it has the same
  # fast form; autodiff would transform the products instead, and is slower.
  flipped = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
  # Together with the forward padding each side then has n - 1 zeros, a full correlation.
  sizes = zip(kernel.shape[:3], pads, strict=True)
  around = tuple((n - 1 - low, n - 1 - high) for n, (low, high) in sizes)
  if form == "winograd":
    kernel_gradient = _winograd_kernel_gradient(x, g, kernel, pads)
  else:
    kernel_gradient = kernel_gradient_by_packs(x, g, kernel, pads, count)
  return _output_in_form(g, flipped, strides, around, form), kernel_gradient


# A rule of our own, so that only x and the kernel are kept for the backward pass: differentiated
# as it stands, `platform_dependent` keeps the residuals of both branches.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv_in_form(
  x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, form: Form
) -> jax.Array:
  return _compute_output(x, kernel, strides, pads, form)


def _conv_in_form_fwd(
  x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, form: Form
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _compute_output(x, kernel, strides, pads, form), (x, kernel)


def _conv_in_form_bwd(
  strides: Triple, pads: Pads, form: Form, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  return _compute_gradients(x, kernel, g, strides, pads, form)


_conv_in_form.defvjp(_conv_in_form_fwd, _conv_in_form_bwd)
