"""Converts weights of the released PyTorch code (ozan-oktay/Attention-Gated-Networks).

Its networks `unet_ct_dsv`, `unet_ct_single_att_dsv` and `unet_ct_multi_att_dsv` are supported, of
the first release and of the last. A kernel is [out, in, X, Y, Z] in PyTorch and [X, Y, Z, in, out]
here; otherwise only the names differ.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_BLOCK = r"/ConvNormRelu_(\d)/(?:Conv_0|BatchNorm_0/BatchNorm_0)"
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias",
         "mean": "running_mean", "var": "running_var"}  # fmt: skip
# Our module path -> the released code's. Its blocks and gates count from 1 and ours from 0, hence
# `next`. `norm` is 0 for a convolution and 1 for the normalisation after it.
_MODULES = (
  (r"encoder(\d)" + _BLOCK, "conv{0}.conv{next[1]}.{norm}"),
  (r"bottleneck" + _BLOCK, "center.conv{next[0]}.{norm}"),
  (r"decoder(\d)" + _BLOCK, "up_concat{0}.conv.conv{next[1]}.{norm}"),
  (r"gating/(?:Conv_0|BatchNorm_0/BatchNorm_0)", "gating.conv1.{norm}"),
  (r"skip(\d)/gate(\d)/(theta|phi|psi)", "attentionblock{0}.gate_block_{next[1]}.{2}"),
  (
    r"skip(\d)/gate(\d)/output(?:_norm/BatchNorm_0)?",
    "attentionblock{0}.gate_block_{next[1]}.W.{norm}",
  ),
  (
    r"skip(\d)/combine/(?:Conv_0|BatchNorm_0/BatchNorm_0)",
    "attentionblock{0}.combine_gates.{norm}",
  ),
  (r"deep_supervision/level1", "dsv1"),
  (r"deep_supervision/level(\d)", "dsv{0}.dsv.0"),
  (r"deep_supervision", "final"),
)
# Newer PyTorch keeps a counter beside the statistics, which nothing here uses.
_UNUSED = "num_batches_tracked"


def get_released_name(path: str) -> str:
  """Returns the released code's name of one of our variables.

  Args:
    path: the variable without its collection, as in 'encoder1/ConvNormRelu_0/Conv_0/kernel'.

  Raises:
    KeyError: the released code has no such variable.
  """
  module, _, leaf = path.rpartition("/")
  for pattern, name in _MODULES:
    if match := re.fullmatch(pattern, module):
      # Groups such as 'theta' are no numbers; no pattern asks for the one after them.
      groups = match.groups()
      following = [int(group) + 1 if group.isdigit() else None for group in groups]
      norm = int("_norm" in module or "BatchNorm" in module)
      return f"{name.format(*groups, next=following, norm=norm)}.{_LEAF[leaf]}"
  raise KeyError(path)


def convert_released(
  state_dict: Mapping[str, np.ndarray], like: Mapping[str, Any]
) -> dict[str, Any]:
  """Converts a `state_dict` of the released code to our variables.

  Args:
    state_dict: arrays by the released code's names.
    like: variables `{'params': ..., 'batch_stats': ...}` of our network, arrays or their shapes.

  Returns:
    float32 arrays in a tree like `like`.

  Raises:
    ValueError: a variable is missing, has another shape, or has no counterpart in `like`.
  """
  # `torch.nn.DataParallel` puts 'module.' before every name.
  given = {name.removeprefix("module."): array for name, array in state_dict.items()}
  given = {name: array for name, array in given.items() if not name.endswith(_UNUSED)}
  wanted = flatten_dict(dict(like), sep="/")
  # Without the collection, which the released code does not name.
  names = {path: get_released_name(path.partition("/")[2]) for path in wanted}
  missing, unknown = names.values() - given.keys(), given.keys() - names.values()
  if missing or unknown:
    raise ValueError(
      f"not this network's variables: {len(missing)} missing ({_list_some(missing)}), "
      f"{len(unknown)} unknown ({_list_some(unknown)})"
    )
  result: dict[str, Any] = unflatten_dict(
    {
      path: _convert_array(given[names[path]], like.shape, names[path])
      for path, like in wanted.items()
    },
    sep="/",
  )
  return result


def describe_state_dict(state_dict: Mapping[str, np.ndarray]) -> str:
  """Describes the network of a released `state_dict`, as far as its shapes tell."""
  shapes = {name.removeprefix("module."): np.shape(array) for name, array in state_dict.items()}
  first, last = shapes.get("conv1.conv1.0.weight"), shapes.get("final.weight")
  if not first or not last:
    return "not a network of the reference: conv1.conv1.0.weight or final.weight is absent"
  # The gates of one level are enough: all levels have as many.
  gates = len({n for n in shapes if re.fullmatch(r"attentionblock4\.gate_block_\d\.psi\.bias", n)})
  name = (
    f"attention_unet with model.gates={gates} and {_describe_gating(shapes)}" if gates else "unet"
  )
  scale = f"model.feature_scale about {64 / first[0]:.3g} ({first[0]} filters at the finest level)"
  return f"{name}, {scale}, {last[0] - 1} classes beside the background"


def _describe_gating(shapes: Mapping[str, tuple[int, ...]]) -> str:
  """Returns the option `model.gating`, as the shape of the gating signal tells it."""
  # A shared signal has half of the bottleneck's channels, a progressive one has all of them.
  shape = shapes.get("gating.conv1.0.weight", (0, 0))
  return f"model.gating={'shared' if shape[0] < shape[1] else 'progressive'}"


def _convert_array(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
  """Converts one array of the released code to our axes.

  Raises:
    ValueError: its shape is not the one that our network has.
  """
  array = np.asarray(array, np.float32)
  # [out, in, X, Y, Z] -> [X, Y, Z, in, out]; vectors stay as they are.
  ours = np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array
  if name == "final.weight":  # a 1x1x1 convolution, where our network has a matrix
    ours = ours.reshape(ours.shape[-2:])
  if ours.shape != tuple(shape):
    raise ValueError(f"{name} has the shape {array.shape}, which is no match for our {shape}")
  return np.ascontiguousarray(ours)


def _list_some(names: set[str]) -> str:
  # Two names show what is wrong; a mismatch may concern hundreds of them.
  return ", ".join(sorted(names)[:2]) + (", ..." if len(names) > 2 else "")
