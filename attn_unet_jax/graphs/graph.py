"""An ONNX graph that is being written."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attn_unet_jax.graphs.values import (
  Constant,
  FoldableConvolution,
  Shape,
  Tensor,
  UnsupportedProgramError,
  Value,
)

# A program is traced for so many windows. No other size is a multiple of this prime, so that every
# size that depends on their number is known by being one.
BATCH = 10007
# Of ONNX: older than the newest, so that older runtimes read it.
OPSET = 17


class Graph:
  """The nodes and constants of an ONNX graph, in the order of computation.

  Args:
    onnx: the package.
  """

  def __init__(self, onnx: Any):
    self._onnx = onnx
    self.nodes: list[Any] = []
    self.initializers: dict[str, np.ndarray] = {}
    self._by_content: dict[tuple[object, ...], str] = {}
    self._count = 0
    self.inputs: list[Tensor] = []

  def add_input(self, name: str, shape: Shape) -> Tensor:
    """Declares an input, float32."""
    tensor = Tensor(name, shape, shape, tuple(range(len(shape))), np.dtype(np.float32))
    self.inputs.append(tensor)
    return tensor

  def add_node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
    """Adds an operation with one result and returns the name of that."""
    name = f"v{self._count}"
    self._count += 1
    self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
    return name

  def add_array(self, array: np.ndarray) -> str:
    """Adds a constant, one for equal ones, and returns its name."""
    # NumPy makes an axis of a scalar there; the shape is needed as it was.
    array = np.ascontiguousarray(array).reshape(array.shape)
    # A digest, since the bytes of large kernels would be held a second time.
    key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
    if key not in self._by_content:
      self._by_content[key] = f"c{len(self._by_content)}"
      self.initializers[self._by_content[key]] = array
    return self._by_content[key]

  def add_integers(self, values: Sequence[int]) -> str:
    """Adds a constant of sizes or places and returns its name; of none too it is int64."""
    return self.add_array(np.array(values, np.int64))

  def add_convolution(self, convolution: FoldableConvolution) -> str:
    """Adds a convolution and returns the name of its result."""
    arrays = [self.add_array(convolution.kernel), self.add_array(convolution.bias)]
    return self.add_node("Conv", [convolution.inputs, *arrays], **convolution.attributes)

  def cast_type(self, dtype: Any) -> int:
    """Returns ONNX's number of a type."""
    number: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return number

  def reorder(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Returns a tensor that is stored in another order of its axes."""
    if tuple(order) == tensor.order:
      return tensor
    permutation = [tensor.order.index(axis) for axis in order]
    # Axes of one element move for nothing.
    moved = [place for place in permutation if tensor.stored[place] != 1]
    if moved == sorted(moved):
      sizes = [tensor.sizes[axis] for axis in order]
      name = self.reshape(tensor.name, sizes)
    else:
      name = self.add_node("Transpose", [tensor.name], perm=permutation)
    return Tensor(name, tensor.shape, tensor.sizes, tuple(order), tensor.dtype)

  def reshape(self, name: str, sizes: Sequence[int]) -> str:
    """Reshapes a stored array; the size that depends on the number of windows is left open."""
    return self.add_node("Reshape", [name, self.add_integers(open_sizes(sizes))])

  def settle(self, value: Value, order: Sequence[int] | None = None) -> Tensor:
    """Returns a tensor of the whole shape, if asked for in an order of its axes."""
    if isinstance(value, Constant):
      value = self._settle_constant(value)
    if order is not None:
      value = self.reorder(value, order)
    if value.sizes == value.shape:
      return value
    shape = [value.shape[axis] for axis in value.order]
    name = self.add_node("Expand", [value.name, self._describe_shape(shape)])
    return Tensor(name, value.shape, value.shape, value.order, value.dtype)

  def _settle_constant(self, value: Constant) -> Tensor:
    order = tuple(range(len(value.shape)))
    name = self.add_array(value.array)
    return Tensor(name, value.shape, value.sizes, order, value.array.dtype)

  def _describe_shape(self, shape: Sequence[int]) -> str:
    """Returns the name of a shape's int64 array."""
    if not any(is_batched(size) for size in shape):
      return self.add_integers(shape)
    # How many windows there are is known only when the graph runs.
    known = self.add_node("Shape", [self.inputs[0].name], start=0, end=1)
    factors = self.add_integers([n // BATCH if is_batched(n) else 0 for n in shape])
    others = self.add_integers([0 if is_batched(n) else n for n in shape])
    return self.add_node("Add", [self.add_node("Mul", [known, factors]), others])

  def finish(self, output: Tensor, name: str) -> Any:
    """Returns the model: the nodes that the output needs, checked."""
    helper, onnx = self._onnx.helper, self._onnx
    result = self.settle(output, range(len(output.shape)))
    # A node of its own gives the public name: the answer may be an input or a constant.
    self.nodes.append(helper.make_node("Identity", [result.name], [name]))
    nodes = _keep_needed(self.nodes, name)
    # Kernels that became part of others are still there; a file with both would be twice as large.
    used = {one for node in nodes for one in node.input}
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
      nodes,
      "network",
      [helper.make_tensor_value_info(i.name, number, name_sizes(i.shape)) for i in self.inputs],
      [helper.make_tensor_value_info(name, number, name_sizes(output.shape))],
      [
        onnx.numpy_helper.from_array(array, one)
        for one, array in self.initializers.items()
        if one in used
      ],
    )
    # Format 8 came with opset 17. The package would write its newest, which older runtimes refuse.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def is_batched(size: int) -> bool:
  """Returns whether a size depends on the number of windows."""
  return size > 0 and size % BATCH == 0


def open_sizes(sizes: Sequence[int]) -> list[int]:
  """Returns the sizes with -1 for the one that depends on the number of windows."""
  # ONNX infers one size of a shape, not two.
  if sum(map(is_batched, sizes)) > 1:
    raise UnsupportedProgramError("a shape with the number of windows twice")
  return [-1 if is_batched(size) else size for size in sizes]


def name_sizes(sizes: Sequence[int]) -> list[int | str]:
  """Returns the sizes of an input or output, the number of windows as `n`."""
  if any(is_batched(size) and size != BATCH for size in sizes):
    raise UnsupportedProgramError("an answer of another number of windows")
  return ["n" if is_batched(size) else size for size in sizes]


def count_elements(sizes: Sequence[int]) -> int:
  """Counts the elements of an array for one window."""
  return math.prod(n // BATCH if is_batched(n) else n for n in sizes)


def _keep_needed(nodes: Sequence[Any], output: str) -> list[Any]:
  needed, kept = {output}, []
  for node in reversed(nodes):
    if node.output[0] in needed:
      needed.update(node.input)
      kept.append(node)
  return kept[::-1]
