"""oneDNN's 3-D convolution and its gradients, as calls of compiled JAX programs on a CPU.

Arrays are float32 or bfloat16, all of one type; sums are in float32. One convolution is computed at
a time, on all cores that the process may use, or on as many as OMP_NUM_THREADS says. The bits of a
result depend on that number, on the processor and on nothing else.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

# OpenMP's threads otherwise spin while they wait for work, on the cores that XLA's threads need.
# It reads this when it is loaded, which is here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_LIBRARY = ctypes.CDLL(str(Path(__file__).with_name("libconvolution.so")))
_LIBRARY.HasBfloat16.restype = ctypes.c_bool
for _name in ("ComputeOutput", "ComputeInputGradient", "ComputeKernelGradient"):
  jax.ffi.register_ffi_target(
    f"attn_unet_jax_onednn.{_name}", jax.ffi.pycapsule(getattr(_LIBRARY, _name)), platform="cpu"
  )

Pads = Sequence[tuple[int, int]]


def has_bfloat16() -> bool:
  """Returns whether this processor multiplies in bfloat16; otherwise only float32 is fast."""
  return bool(_LIBRARY.HasBfloat16())


def compute_output(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads
) -> jax.Array:
  """Convolves x [N, X, Y, Z, C] with a kernel [kx, ky, kz, C, D].

  Args:
    x: the input.
    kernel: of x's type.
    strides: step along X, Y and Z.
    pads: zeros below and above along X, Y and Z.

  Returns:
    [N, X', Y', Z', D].
  """
  sizes = zip(x.shape[1:4], pads, kernel.shape[:3], strides, strict=True)
  grid = [(length + sum(pad) - size) // step + 1 for length, pad, size, step in sizes]
  shape = (x.shape[0], *grid, kernel.shape[-1])
  return _call("ComputeOutput", x, kernel, shape, strides, pads)


def compute_input_gradient(
  kernel: jax.Array, g: jax.Array, shape: Sequence[int], strides: Sequence[int], pads: Pads
) -> jax.Array:
  """Computes the gradient in x, of a shape, for the cotangent g of `compute_output`."""
  return _call("ComputeInputGradient", kernel, g, shape, strides, pads)


def compute_kernel_gradient(
  x: jax.Array, g: jax.Array, shape: Sequence[int], strides: Sequence[int], pads: Pads
) -> jax.Array:
  """Computes the gradient in the kernel, of a shape, for the cotangent g of `compute_output`."""
  return _call("ComputeKernelGradient", x, g, shape, strides, pads)


def _call(
  name: str,
  first: jax.Array,
  second: jax.Array,
  shape: Sequence[int],
  strides: Sequence[int],
  pads: Pads,
) -> jax.Array:
  written = jax.ShapeDtypeStruct(tuple(shape), first.dtype)
  call = jax.ffi.ffi_call(f"attn_unet_jax_onednn.{name}", written, vmap_method="sequential")
  result: jax.Array = call(
    first,
    second,
    strides=np.array(strides, np.int64),
    pads=np.array(pads, np.int64).ravel(),
  )
  return result
