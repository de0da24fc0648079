"""Traces each building block of the networks as one operation, for what translates a network.

A network is computed in forms that XLA compiles well: a convolution as a sum of others, pooling by
reshape. Who reads the traced program, to write it down for another runtime, wants the operation
itself. Within `single_operations` a convolution is one convolution, whatever its form, and the
primitives below stand for pooling and interpolation.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from jax.extend.core import Primitive

# The dilation of convolutions that are traced as one operation; 0: they are not.
_DILATION: contextvars.ContextVar[int] = contextvars.ContextVar("single_dilation", default=0)

max_pool_p = Primitive("max_pool_3d")
upsample_p = Primitive("upsample_3d")


@contextlib.contextmanager
def single_operations() -> Iterator[None]:
  """Traces what is inside with one operation for each building block."""
  with _set_dilation(1):
    yield


@contextlib.contextmanager
def dilate_single(rate: int) -> Iterator[None]:
  """Dilates the convolutions inside by a rate; only within `single_operations`."""
  with _set_dilation(rate):
    yield


def single_dilation() -> int:
  """Returns the dilation of convolutions that are one operation; 0 outside `single_operations`."""
  return _DILATION.get()


@contextlib.contextmanager
def _set_dilation(rate: int) -> Iterator[None]:
  token = _DILATION.set(rate)
  try:
    yield
  finally:
    _DILATION.reset(token)


def _shape_max_pool(x: Any) -> Any:
  n, X, Y, Z, channels = x.shape
  return x.update(shape=(n, X // 2, Y // 2, Z // 2, channels))


def _shape_upsample(x: Any, *, shape: tuple[int, ...], mode: str) -> Any:
  del mode
  return x.update(shape=(x.shape[0], *shape, x.shape[-1]))


max_pool_p.def_abstract_eval(_shape_max_pool)
upsample_p.def_abstract_eval(_shape_upsample)
