"""Rules of operations that move, join or cut axes, or take sums and maxima along them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.graphs.graph import Graph, is_batched
from attn_unet_jax.graphs.values import Constant, Shape, Tensor, UnsupportedProgramError, Value

_REDUCTIONS = {
  "reduce_sum": "ReduceSum",
  "reduce_max": "ReduceMax",
  "reduce_min": "ReduceMin",
  "reduce_prod": "ReduceProd",
}


def transpose(graph: Graph, x: Tensor, params: Mapping[str, Any]) -> Tensor:
  """Renames the axes; nothing moves."""
  del graph
  # Programs transpose to and fro: only a rule that needs an order stores the axes in it.
  permutation = tuple(params["permutation"])
  return Tensor(
    x.name,
    tuple(x.shape[axis] for axis in permutation),
    tuple(x.sizes[axis] for axis in permutation),
    tuple(permutation.index(axis) for axis in x.order),
    x.dtype,
  )


def broadcast_in_dim(graph: Graph, x: Tensor, params: Mapping[str, Any]) -> Tensor:
  """Adds axes of one element, and lets one element stand for many."""
  shape, places = tuple(params["shape"]), tuple(params["broadcast_dimensions"])
  sizes = [1] * len(shape)
  for axis, place in enumerate(places):
    sizes[place] = x.sizes[axis]
  order = [places[axis] for axis in x.order]
  for axis in (axis for axis in range(len(shape)) if axis not in places):
    # Channels are stored after the first axis, others after the axis before.
    is_last = axis == len(shape) - 1
    order.insert(1 if is_last else order.index(axis - 1) + 1 if axis else 0, axis)
  name = x.name
  if len(shape) > len(places):
    name = graph.reshape(name, [sizes[axis] for axis in order])
  return Tensor(name, shape, tuple(sizes), tuple(order), x.dtype)


def squeeze(graph: Graph, x: Tensor, params: Mapping[str, Any]) -> Tensor:
  """Removes axes of one element."""
  # JAX allows axes that are counted from the end.
  gone = {axis % len(x.shape) for axis in params["dimensions"]}
  return _drop_axes(x, gone, lambda sizes: graph.reshape(x.name, sizes))


def reduce(graph: Graph, operation: str, x: Tensor, params: Mapping[str, Any]) -> Tensor:
  """Takes the sum, the maximum, the minimum or the product along axes.

  Raises:
    UnsupportedProgramError: windows are mixed.
  """
  gone = {axis % len(x.shape) for axis in params["axes"]}
  if any(is_batched(x.shape[axis]) for axis in gone):
    raise UnsupportedProgramError("a sum or a maximum over several windows")
  if not gone:  # to ONNX no axes are all of them
    return x
  # An element that stands for many would be summed once only.
  whole = graph.settle(x)
  places = [place for place, axis in enumerate(whole.order) if axis in gone]
  if operation == "reduce_sum":  # the one whose axes are an input in this version of ONNX
    inputs, attributes = [whole.name, graph.add_integers(places)], {}
  else:
    inputs, attributes = [whole.name], {"axes": places}
  # JAX's reductions drop their axes; ONNX's keep them as axes of one element if not told.
  name = graph.add_node(_REDUCTIONS[operation], inputs, keepdims=0, **attributes)
  return _drop_axes(whole, gone, lambda _: name)


def is_reduction(operation: str) -> bool:
  """Returns whether `reduce` knows an operation."""
  return operation in _REDUCTIONS


def _drop_axes(x: Tensor, gone: set[int], name: Any) -> Tensor:
  kept = [axis for axis in range(len(x.shape)) if axis not in gone]
  order = tuple(kept.index(axis) for axis in x.order if axis not in gone)
  sizes = tuple(x.sizes[axis] for axis in kept)
  made = name([sizes[axis] for axis in order])
  return Tensor(made, tuple(x.shape[axis] for axis in kept), sizes, order, x.dtype)


def concatenate(graph: Graph, values: Sequence[Value], axis: int) -> Tensor:
  """Joins arrays along an axis.

  Raises:
    UnsupportedProgramError: windows are joined.
  """
  if any(is_batched(one.shape[axis]) for one in values):
    raise UnsupportedProgramError("windows that are joined to others")
  # The first tensor, usually the skip, is not moved; the others follow it.
  order = next(one.order for one in values if isinstance(one, Tensor))
  tensors = [graph.settle(one, order) for one in values]
  name = graph.add_node("Concat", [one.name for one in tensors], axis=order.index(axis))
  size = sum(one.shape[axis] for one in values)
  shape = (*tensors[0].shape[:axis], size, *tensors[0].shape[axis + 1 :])
  return Tensor(name, shape, shape, order, tensors[0].dtype)


def stack(graph: Graph, values: Sequence[Value], axis: int) -> Tensor:
  """Joins arrays along a new axis."""
  return concatenate(graph, [_insert_axis(graph, one, axis) for one in values], axis)


def _insert_axis(graph: Graph, value: Value, axis: int) -> Value:
  shape = (*value.shape[:axis], 1, *value.shape[axis:])
  if isinstance(value, Constant):
    return Constant(np.expand_dims(value.array, axis), shape)
  places = [place for place in range(len(shape)) if place != axis]
  return broadcast_in_dim(graph, value, {"shape": shape, "broadcast_dimensions": places})


def cut(
  graph: Graph, x: Tensor, starts: Sequence[int], limits: Sequence[int], steps: Sequence[int]
) -> Tensor:
  """Takes a part of every axis."""
  changed = [
    axis
    for axis, size in enumerate(x.shape)
    if (starts[axis], limits[axis], steps[axis]) != (0, size, 1)
  ]
  if any(is_batched(x.shape[axis]) for axis in changed):
    raise UnsupportedProgramError("a part of the windows")
  # Rounded up: the last step may reach beyond the limit.
  shape = tuple(-(-(b - a) // s) for a, b, s in zip(starts, limits, steps, strict=True))
  # One element that stands for many stands for fewer.
  real = [axis for axis in changed if x.sizes[axis] == x.shape[axis]]
  name = x.name
  if real:
    places = [x.order.index(axis) for axis in real]
    lists = ([values[axis] for axis in real] for values in (starts, limits))
    arrays = [*lists, places, [steps[axis] for axis in real]]
    name = graph.add_node("Slice", [name, *(graph.add_integers(one) for one in arrays)])
  sizes = tuple(shape[axis] if axis in real else n for axis, n in enumerate(x.sizes))
  return Tensor(name, shape, sizes, x.order, x.dtype)


def split(graph: Graph, x: Tensor, params: Mapping[str, Any]) -> list[Tensor]:
  """Cuts an axis into parts."""
  # Not ONNX's Split: `cut` alone knows axes of which one element is stored.
  axis, start, parts = params["axis"], 0, []
  for size in params["sizes"]:
    starts, limits = [0] * len(x.shape), list(x.shape)
    starts[axis], limits[axis] = start, start + size
    parts.append(cut(graph, x, starts, limits, [1] * len(x.shape)))
    start += size
  return parts


def pad(graph: Graph, x: Tensor, value: Value, params: Mapping[str, Any]) -> Tensor:
  """Adds a constant around an array, or cuts a border off."""
  config = params["padding_config"]
  if any(inner for _, _, inner in config):
    raise UnsupportedProgramError("values between those of an array")
  # In XLA negative padding cuts off, which must not happen to windows: `cut` checks that.
  kept = [
    (max(0, -low), size - max(0, -high))
    for size, (low, high, _) in zip(x.shape, config, strict=True)
  ]
  x = cut(graph, x, [a for a, _ in kept], [b for _, b in kept], [1] * len(kept))
  if not any(max(low, high) > 0 for low, high, _ in config):
    return x
  if any(is_batched(n) and max(c[:2]) > 0 for n, c in zip(x.shape, config, strict=True)):
    raise UnsupportedProgramError("windows that are added")
  whole = graph.settle(x)
  # ONNX wants the starts of all axes first, then the ends of all.
  sides = [max(0, config[axis][side]) for side in (0, 1) for axis in whole.order]
  inputs = [whole.name, graph.add_integers(sides), graph.settle(value).name]
  name = graph.add_node("Pad", inputs, mode="constant")
  shape = tuple(
    n + max(0, low) + max(0, high) for n, (low, high, _) in zip(whole.shape, config, strict=True)
  )
  return Tensor(name, shape, shape, whole.order, whole.dtype)


def reshape(graph: Graph, x: Tensor, shape: Shape) -> Tensor:
  """Splits and joins axes where they are stored if that is possible."""
  x, shape = graph.settle(x), tuple(shape)
  groups = match_axes(x.shape, shape)
  order = _follow_groups(x.order, groups)
  if order is None:
    # In the program's own order every reshape is one of what is stored.
    x = graph.reorder(x, range(len(x.shape)))
    order = tuple(range(len(shape)))
  name = graph.reshape(x.name, [shape[axis] for axis in order])
  return Tensor(name, shape, shape, order, x.dtype)


def match_axes(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
  """Matches the axes of two shapes of one array: groups of equal numbers of elements, in order."""
  groups: list[tuple[list[int], list[int]]] = []
  i = j = 0
  while i < len(old) or j < len(new):
    # An axis of one element belongs to no product: it may come or go anywhere.
    if i < len(old) and old[i] == 1 and (j == len(new) or new[j] != 1):
      groups.append(([i], []))
      i += 1
    elif j < len(new) and new[j] == 1 and (i == len(old) or old[i] != 1):
      groups.append(([], [j]))
      j += 1
    else:
      group = ([i], [j])
      i, j = i + 1, j + 1
      while (a := math.prod(old[k] for k in group[0])) != (
        b := math.prod(new[k] for k in group[1])
      ):
        # The side with fewer elements takes its next axis until both have equally many.
        if a < b:
          group[0].append(i)
          i += 1
        else:
          group[1].append(j)
          j += 1
      groups.append(group)
  return groups


def _follow_groups(
  order: Sequence[int], groups: Sequence[tuple[list[int], list[int]]]
) -> tuple[int, ...] | None:
  """Returns the order of the new axes; None if axes that are joined are stored apart."""
  result: list[int] = []
  place = 0
  while place < len(order):
    old, new = next(group for group in groups if order[place] in group[0])
    if list(order[place : place + len(old)]) != old:
      return None
    result += new
    place += len(old)
  for old, new in groups:
    if not old:  # an axis of one element, stored after the one before
      result.insert(result.index(new[0] - 1) + 1 if new[0] else 0, new[0])
  return tuple(result)
