"""Weights of the reference PyTorch code (ozan-oktay/Attention-Gated-Networks) as our variables.

Read: `unet_ct_dsv`, `unet_ct_single_att_dsv` and `unet_ct_multi_att_dsv`, of the first release and
of the last. PyTorch keeps a kernel as [out, in, X, Y, Z], we as [X, Y, Z, in, out]; everything else
differs by name only.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_BLOCK = r"/ConvNormRelu_(\d)/(?:Conv_0|BatchNorm_0/BatchNorm_0)"
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias",
         "mean": "running_mean", "var": "running_var"}  # fmt: skip
# Our module path -> the reference's. Its blocks and gates count from 1, ours from 0: `next`. `norm`
# is 0 for a convolution and 1 for the normalisation behind it.
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
_NOT_READ = "num_batches_tracked"  # a counter that newer PyTorch keeps beside the statistics


def released_name(path: str) -> str:
  """The reference's name of one of our variables.

  Args:
    path: as in 'encoder1/ConvNormRelu_0/Conv_0/kernel', without the collection.

  Raises:
    KeyError: the reference has no such variable.
  """
  module, _, leaf = path.rpartition("/")
  for pattern, name in _MODULES:
    if match := re.fullmatch(pattern, module):
      groups = match.groups()
      following = [int(group) + 1 if group.isdigit() else None for group in groups]
      norm = int("_norm" in module or "BatchNorm" in module)
      return f"{name.format(*groups, next=following, norm=norm)}.{_LEAF[leaf]}"
  raise KeyError(path)


def convert_released(
  state_dict: Mapping[str, np.ndarray], like: Mapping[str, Any]
) -> dict[str, Any]:
  """Our variables from a `state_dict` of the reference.

  Args:
    state_dict: arrays by the reference's names; a leading 'module.' (data parallel) is dropped.
    like: variables `{'params': ..., 'batch_stats': ...}` of our network, arrays or their shapes.

  Returns:
    float32 arrays in a tree like `like`.

  Raises:
    ValueError: a variable is missing, has another shape, or is one that `like` has no place for.
  """
  given = {name.removeprefix("module."): array for name, array in state_dict.items()}
  given = {name: array for name, array in given.items() if not name.endswith(_NOT_READ)}
  wanted = flatten_dict(dict(like), sep="/")
  names = {path: released_name(path.partition("/")[2]) for path in wanted}
  missing, unknown = names.values() - given.keys(), given.keys() - names.values()
  if missing or unknown:
    raise ValueError(
      f"not this network's variables: {len(missing)} missing ({_list_some(missing)}), "
      f"{len(unknown)} unknown ({_list_some(unknown)})"
    )
  return unflatten_dict(
    {
      path: _convert_array(given[names[path]], like.shape, names[path])
      for path, like in wanted.items()
    },
    sep="/",
  )


def describe_state_dict(state_dict: Mapping[str, np.ndarray]) -> str:
  """What network a `state_dict` of the reference is of, as far as its shapes tell."""
  shapes = {name.removeprefix("module."): np.shape(array) for name, array in state_dict.items()}
  first, last = shapes.get("conv1.conv1.0.weight"), shapes.get("final.weight")
  if not first or not last:
    return "not a network of the reference: conv1.conv1.0.weight or final.weight is absent"
  gates = len({n for n in shapes if re.fullmatch(r"attentionblock4\.gate_block_\d\.psi\.bias", n)})
  name = (
    f"attention_unet with model.gates={gates} and {_describe_gating(shapes)}" if gates else "unet"
  )
  scale = f"model.feature_scale about {64 / first[0]:.3g} ({first[0]} filters at the finest level)"
  return f"{name}, {scale}, {last[0] - 1} classes beside the background"


def _describe_gating(shapes: Mapping[str, tuple[int, ...]]) -> str:
  """A signal that is shared has half the bottleneck's channels, else it has all of them."""
  shape = shapes.get("gating.conv1.0.weight", (0, 0))
  return f"model.gating={'shared' if shape[0] < shape[1] else 'progressive'}"


def _convert_array(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
  array = np.asarray(array, np.float32)
  ours = np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array
  if name == "final.weight":  # 1x1x1; ours is a matrix
    ours = ours.reshape(ours.shape[-2:])
  if ours.shape != tuple(shape):
    raise ValueError(f"{name} has the shape {array.shape}, which is no match for our {shape}")
  return np.ascontiguousarray(ours)


def _list_some(names: set[str]) -> str:
  return ", ".join(sorted(names)[:2]) + (", ..." if len(names) > 2 else "")
