"""Loads torchvision's ImageNet weights into networks whose trunk is VGG-16.

A kernel is [out, in, A, B] in PyTorch and [A, B, in, out] here. Torchvision numbers convolutions,
ReLUs and poolings consecutively: the trunk is features.0, features.2, (a pooling,) features.5, ...
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from attn_unet_jax.models.hnn import STAGES


def trunk_names() -> dict[str, str]:
  """Returns torchvision's name by our path in a view: 'stage1/conv1' -> 'features.0', 13 in all."""
  names, number = {}, 0
  for stage, convolutions in enumerate(STAGES, 1):
    for conv in range(1, convolutions + 1):
      names[f"stage{stage}/conv{conv}"] = f"features.{number}"
      number += 2  # the convolution and its ReLU
    number += 1  # the pooling after the stage
  return names


def insert_vgg16_trunk(
  state_dict: Mapping[str, np.ndarray], params: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the parameters with ImageNet's trunk in every view; other parameters stay unchanged.

  Args:
    state_dict: arrays by torchvision's names; those of the classifier are not read.
    params: parameters of our network, `{view: {'stage1': {'conv1': ...}, ...}}`.

  Raises:
    ValueError: a convolution is missing or has another shape.
  """
  names = trunk_names()
  flat = flatten_dict(dict(params), sep="/")
  for path, like in flat.items():
    # Without the view: all views begin with one trunk, and the training lets them differ.
    module, _, leaf = path.partition("/")[2].rpartition("/")
    if module in names:
      name = f"{names[module]}.{'weight' if leaf == 'kernel' else 'bias'}"
      flat[path] = _convert_array(state_dict, name, like.shape)
  result: dict[str, Any] = unflatten_dict(flat, sep="/")
  return result


def _convert_array(
  state_dict: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
  """Converts one array of torchvision to our axes.

  Raises:
    ValueError: it is missing or has another shape.
  """
  if name not in state_dict:
    raise ValueError(f"{name} is missing")
  array = np.asarray(state_dict[name], np.float32)
  # [out, in, A, B] -> [A, B, in, out]; biases stay as they are.
  ours = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
  if ours.shape != tuple(shape):
    raise ValueError(f"{name} has the shape {array.shape}, which is no match for our {shape}")
  return np.ascontiguousarray(ours)
