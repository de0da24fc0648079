"""What flows through a traced program: tensors of the graph, and constants."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class UnsupportedProgramError(Exception):
  """A program has an operation that the graph cannot express; the message says which."""


# Compared by identity, here and below: the equality of two arrays is an array.
@dataclass(frozen=True, eq=False)
class Constant:
  """An array that does not depend on the input.

  Attributes:
    array: its values; where `shape` is larger, an axis of 1 stands for equal values along it.
    shape: the shape in the program.
  """

  array: np.ndarray
  shape: Shape

  @property
  def sizes(self) -> Shape:
    """The shape of `array`, which has as many axes as `shape`."""
    return self.array.shape


@dataclass(frozen=True, eq=False)
class FoldableConvolution:
  """A convolution whose result a constant factor or summand of each channel can still change.

  Attributes:
    inputs: the name of its input.
    kernel: weights [O, I, ...], as stored in the graph.
    bias: [O].
    attributes: those of its node.
  """

  inputs: str
  kernel: np.ndarray
  bias: np.ndarray
  attributes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tensor:
  """A value that the graph computes.

  Attributes:
    name: its name in the graph.
    shape: the shape in the program.
    sizes: the sizes of the program's axes in the graph: 1 where equal values are stored once.
    order: the program's axis that each axis in the graph is.
    dtype: the type of its elements.
    convolution: what computes it, if that is a convolution and nothing else reads its result.
  """

  name: str
  shape: Shape
  sizes: Shape
  order: tuple[int, ...]
  dtype: np.dtype[Any]
  convolution: FoldableConvolution | None = None

  @property
  def stored(self) -> Shape:
    """The shape in the graph."""
    return tuple(self.sizes[axis] for axis in self.order)


Value = Constant | Tensor
