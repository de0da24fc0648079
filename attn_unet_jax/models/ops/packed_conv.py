"""3-D convolution of packed voxels: neighbours along Z become the channels of one voxel.

A GPU multiplies matrices in tiles of 64 channels and more, and cuDNN pays for each tap of a kernel:
16 channels leave both mostly idle. With channels last a pack of `count` voxels costs nothing but a
reshape, and has `count` times the channels. Output voxel i of a pack sees the input's voxels i to
i + kz - 1 from the pack's first on: a kernel of fewer taps, with zeros where a voxel is not seen.
Its gains and costs are measured in docs/reference/gpu.md.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NXYZC", "XYZIO", "NXYZC")
Pads = Sequence[tuple[int, int]]


def packed_conv3d(x: jax.Array, kernel: jax.Array, pads: Pads, count: int) -> jax.Array:
  """Convolves at stride 1.

  Args:
    x: input [N, X, Y, Z, C].
    kernel: weights [kx, ky, kz, C, D], of x's type.
    pads: zeros before and after each axis.
    count: voxels of a pack; divides the output's Z.

  Returns:
    [N, X', Y', Z', D], of x's type.

  Raises:
    TypeError: `count` does not divide Z'.
  """
  return _convolve_packs(x, _pack_kernel(kernel, count), pads, count, kernel.shape[2])


def kernel_gradient_by_packs(
  x: jax.Array, g: jax.Array, kernel: jax.Array, pads: Pads, count: int
) -> jax.Array:
  """Computes the gradient of `packed_conv3d` in the kernel, for the output's cotangent g.

  A weight stands in `count` places of the packed kernel; their gradients are summed in float32.
  """
  wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
  packed, unpack = jax.vjp(functools.partial(_pack_kernel, count=count), wide)
  product = functools.partial(_convolve_packs, x, pads=pads, count=count, size=kernel.shape[2])
  gradient = jax.vjp(product, packed.astype(kernel.dtype))[1](g)[0]
  result: jax.Array = unpack(gradient.astype(wide.dtype))[0].astype(kernel.dtype)
  return result


def _pack_kernel(kernel: jax.Array, count: int) -> jax.Array:
  """Packs a kernel, [kx, ky, kz, C, D] to [kx, ky, taps, count C, count D]."""
  kx, ky, kz, channels, features = kernel.shape
  none, rows = (0, 0), _count_packs(kz, count) * count - kz
  # Copy i serves output voxel i of a pack: its taps stand i voxels later, with zeros around.
  moved = [jnp.pad(kernel, (none, none, (i, rows - i), none, none)) for i in range(count)]
  return jnp.stack(moved, axis=4).reshape(
    kx, ky, _count_packs(kz, count), count * channels, count * features
  )


def _count_packs(size: int, count: int) -> int:
  """Returns how many packs the `size` taps of a kernel reach from all voxels of the first."""
  return -(-(count + size - 1) // count)


def _convolve_packs(
  x: jax.Array, packed_kernel: jax.Array, pads: Pads, count: int, size: int
) -> jax.Array:
  """Convolves x, not packed, with a packed kernel that had `size` taps along Z."""
  n, X, Y, Z, channels = x.shape
  low, high = pads[2]
  length = Z + low + high - size + 1
  whole = length + count * (_count_packs(size, count) - 1)
  # The taps of the last pack reach beyond the input, up to a whole pack: zeros stand there.
  x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (low, whole - Z - low), (0, 0)))
  packs = x.reshape(n, X, Y, whole // count, count * channels)
  around = (*pads[:2], (0, 0))
  y = lax.conv_general_dilated(packs, packed_kernel, (1, 1, 1), around, dimension_numbers=_LAYOUT)
  return y.reshape(*y.shape[:3], length, y.shape[4] // count)
