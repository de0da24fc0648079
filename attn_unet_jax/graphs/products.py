"""Rules of convolutions, matrix products, pooling and interpolation."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.graphs.graph import Graph, is_batched
from attn_unet_jax.graphs.values import (
  Constant,
  FoldableConvolution,
  Tensor,
  UnsupportedProgramError,
  Value,
)
from attn_unet_jax.models.ops.resize import interpolation_matrix


def convolve(
  graph: Graph, x: Value, kernel: Value, params: Mapping[str, Any], result: Any
) -> Tensor:
  """Adds a convolution of any number of axes.

  Raises:
    UnsupportedProgramError: the kernel depends on the input, or a rare kind of convolution.
  """
  if not isinstance(x, Tensor) or not isinstance(kernel, Constant):
    raise UnsupportedProgramError("a convolution whose kernel depends on the scan")
  numbers, padding = params["dimension_numbers"], params["padding"]
  dilation, strides = params["lhs_dilation"], params["window_strides"]
  if params["batch_group_count"] != 1:
    raise UnsupportedProgramError("a convolution with groups of windows")
  # JAX's numbers list batch, channels and space of the input, and output, input and space of the
  # kernel: the order in which ONNX wants them.
  whole = graph.settle(x, numbers.lhs_spec)
  weights = np.broadcast_to(kernel.array, kernel.shape).transpose(numbers.rhs_spec)
  attributes: dict[str, Any] = {
    "dilations": list(params["rhs_dilation"]),
    "group": params["feature_group_count"],
  }
  shape, order, dtype = tuple(result.shape), tuple(numbers.out_spec), np.dtype(result.dtype)
  if any(rate != 1 for rate in dilation):
    name = _convolve_transposed(graph, whole, weights, params)
    return Tensor(name, shape, shape, order, dtype)
  # ONNX has no negative padding of convolutions, which in XLA cuts off.
  if any(low < 0 or high < 0 for low, high in padding):
    raise UnsupportedProgramError("a convolution that cuts a border off")
  attributes["strides"] = list(strides)
  # The starts of all axes first, then the ends of all.
  attributes["pads"] = [low for low, _ in padding] + [high for _, high in padding]
  # A bias of zeros has room for the constants that come after.
  made = FoldableConvolution(
    whole.name, weights, np.zeros(weights.shape[0], weights.dtype), attributes
  )
  return Tensor(graph.add_convolution(made), shape, shape, order, dtype, made)


def _convolve_transposed(
  graph: Graph, x: Tensor, weights: np.ndarray, params: Mapping[str, Any]
) -> str:
  """Adds a convolution with zeros between the voxels, a transposed one; returns its result."""
  # ONNX counts what is cut off the full result, which reaches beyond the input by the kernel less
  # one voxel; JAX counts what is padded before. What is negative at the end adds voxels there.
  rates, taps = params["rhs_dilation"], weights.shape[2:]
  reach = [rate * (size - 1) for rate, size in zip(rates, taps, strict=True)]
  low = [n - a for n, (a, _) in zip(reach, params["padding"], strict=True)]
  high = [n - b for n, (_, b) in zip(reach, params["padding"], strict=True)]
  if params["feature_group_count"] != 1 or any(s != 1 for s in params["window_strides"]):
    raise UnsupportedProgramError("a transposed convolution with strides or groups")
  if any(n < 0 for n in low):
    raise UnsupportedProgramError("a transposed convolution with wide padding")
  # ONNX's is the gradient of a convolution: its kernel is mirrored, with input channels first.
  flipped = np.flip(weights, tuple(range(2, weights.ndim))).swapaxes(0, 1)
  return graph.add_node(
    "ConvTranspose",
    [x.name, graph.add_array(flipped)],
    dilations=list(rates),
    strides=list(params["lhs_dilation"]),
    pads=low + [max(0, n) for n in high],
    output_padding=[max(0, -n) for n in high],
  )


def multiply(graph: Graph, a: Value, b: Value, params: Mapping[str, Any], result: Any) -> Tensor:
  """Adds a product of two arrays, summed over some of their axes."""
  # The result has the axes that are left of `a` first, then those of `b`.
  (of_a, of_b), batch = params["dimension_numbers"]
  is_plain = not any(batch) and len(of_a) == len(of_b) == 1
  if is_plain and isinstance(b, Constant) and len(b.shape) == 2:
    matrix = np.broadcast_to(b.array, b.shape)
    return _apply_matrix(
      graph, graph.settle(a), of_a[0], matrix.T if of_b[0] else matrix, last=True
    )
  if is_plain and isinstance(a, Constant) and len(a.shape) == 2:
    matrix = np.broadcast_to(a.array, a.shape)
    x = graph.settle(b)
    return _apply_matrix(graph, x, of_b[0], matrix.T if of_a[0] else matrix, last=False)
  return _sum_products(graph, a, b, params["dimension_numbers"], result)


def _apply_matrix(graph: Graph, x: Tensor, axis: int, matrix: np.ndarray, *, last: bool) -> Tensor:
  """Applies a matrix [old, new] along an axis; the new one is the last or the first."""
  if is_batched(x.shape[axis]):
    raise UnsupportedProgramError("a sum over several windows")
  rank, width = len(x.shape), matrix.shape[1]
  others = [one for one in range(rank) if one != axis]
  rest = [x.shape[one] for one in others]
  shape = (*rest, width) if last else (width, *rest)
  # Where each axis of x comes to be.
  places = {one: place + (0 if last else 1) for place, one in enumerate(others)}
  places[axis] = rank - 1 if last else 0
  if last and axis == rank - 1 and rank in (4, 5) and axis:
    # Along channels it is a convolution of one voxel, which stays in their order.
    moved = graph.reorder(x, (0, axis, *range(1, axis)))
    kernel = matrix.T.reshape(width, -1, *[1] * (rank - 2))
    made = FoldableConvolution(moved.name, kernel, np.zeros(width, kernel.dtype), {})
    return Tensor(graph.add_convolution(made), shape, shape, moved.order, x.dtype, made)
  # MatMul sums over the last axis; the others stay as they are stored.
  moved = graph.reorder(x, [*(one for one in x.order if one != axis), axis])
  name = graph.add_node("MatMul", [moved.name, graph.add_array(matrix)])
  return Tensor(name, shape, shape, tuple(places[one] for one in moved.order), x.dtype)


def _sum_products(
  graph: Graph, a: Value, b: Value, numbers: tuple[Any, Any], result: Any
) -> Tensor:
  (sum_a, sum_b), (batch_a, batch_b) = numbers
  letters = iter(string.ascii_lowercase)
  names_a = {axis: next(letters) for axis in range(len(a.shape))}
  same = dict(zip((*sum_b, *batch_b), (*sum_a, *batch_a), strict=True))
  names_b = {
    axis: names_a[same[axis]] if axis in same else next(letters) for axis in range(len(b.shape))
  }
  if any(is_batched(a.shape[axis]) for axis in sum_a):
    raise UnsupportedProgramError("a sum over several windows")
  free_a = [names_a[axis] for axis in range(len(a.shape)) if axis not in (*sum_a, *batch_a)]
  free_b = [names_b[axis] for axis in range(len(b.shape)) if axis not in (*sum_b, *batch_b)]
  # The order that JAX defines for dot_general.
  answer = [names_a[axis] for axis in batch_a] + free_a + free_b
  x, y = graph.settle(a), graph.settle(b)
  texts = ["".join(n[axis] for axis in t.order) for n, t in ((names_a, x), (names_b, y))]
  equation = f"{texts[0]},{texts[1]}->{''.join(answer)}"
  name = graph.add_node("Einsum", [x.name, y.name], equation=equation)
  shape = tuple(result.shape)
  return Tensor(name, shape, shape, tuple(range(len(shape))), np.dtype(result.dtype))


def max_pool(graph: Graph, x: Tensor) -> Tensor:
  """Takes the largest of every 2x2x2 block of [N, X, Y, Z, C]."""
  whole = graph.settle(x, (0, 4, 1, 2, 3))
  twos = [2, 2, 2]
  name = graph.add_node("MaxPool", [whole.name], kernel_shape=twos, strides=twos)
  shape = (x.shape[0], *(n // 2 for n in x.shape[1:4]), x.shape[4])
  return Tensor(name, shape, shape, whole.order, x.dtype)


def upsample(graph: Graph, x: Tensor, shape: Sequence[int], mode: Any) -> Tensor:
  """Interpolates [N, X, Y, Z, C] linearly to another grid."""
  whole = graph.settle(x, (0, 4, 1, 2, 3))
  sizes, name = list(whole.stored), whole.name
  # By a matrix for each axis, coarse ones first: what ONNX's Resize says about positions is
  # computed in float32, and differs between runtimes.
  for axis, target in enumerate(shape, 2):
    if sizes[axis] == target:
      continue
    matrix = interpolation_matrix(sizes[axis], target, mode).astype(np.float32)
    if axis == 4:
      name = graph.add_node("MatMul", [name, graph.add_array(matrix.T)])
    else:
      # The axis and all behind it as one: rows and columns of a matrix.
      behind = int(np.prod(sizes[axis + 1 :]))
      flat = [*sizes[: axis + 1], behind]
      rows = graph.reshape(name, flat) if axis < 3 else name
      name = graph.add_node("MatMul", [graph.add_array(matrix), rows])
      if axis < 3:
        name = graph.reshape(name, [*sizes[:axis], target, *sizes[axis + 1 :]])
    sizes[axis] = target
  result = (x.shape[0], *shape, x.shape[4])
  return Tensor(name, result, result, whole.order, x.dtype)
