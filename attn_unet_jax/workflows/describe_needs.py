"""Estimates what a config needs of a machine: parameters, operations, memory, devices."""

import math
from typing import Any

import jax

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.labels import class_names
from attn_unet_jax.models.ops.onednn_conv import has_onednn, multiplies_bfloat16
from attn_unet_jax.patches.batch import measure_foreground
from attn_unet_jax.training import topology
from attn_unet_jax.training.cost import forward_cost
from attn_unet_jax.training.mesh import mesh_shape
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network

_PART_OF_GPU = 0.75  # the fraction of a GPU's memory that JAX allocates
_NO_GAIN = (
  "config.model.dtype='bfloat16' makes nothing faster on a CPU, even where the processor computes "
  "in it: XLA's convolutions do not. float32 is at least as fast, and lets predict use OpenVINO"
)
_GAIN = "; here config.model.conv='onednn' makes bfloat16 faster in training"
_ABSENT = "config.model.conv='onednn' is not here, and training needs it: make install-native"


def describe_needs(config: RunConfig, count_steps: int, target: str | None) -> dict[str, Any]:
  """Returns everything that `info` prints.

  Args:
    config: a run's config.
    count_steps: number of steps whose patches are read to count foreground; 0: none.
    target: devices to compile the training step for; None: no compilation.

  Raises:
    UserError: there are no such devices, the config does not fit them, or the data is missing.
  """
  on_devices: dict[str, Any] = {}
  if target is not None:
    # Otherwise JAX's plugin for the target reports that it finds no such device.
    jax.config.update("jax_platforms", "cpu")
    on_devices = {"target": describe_target(config, target)}
  counted = {"foreground": count_foreground(config, count_steps)} if count_steps else {}
  # The devices here say nothing about those of a target.
  notes = [] if target is not None else list_notes(config, jax.default_backend())
  return describe_network(config) | counted | on_devices | ({"notes": notes} if notes else {})


def list_notes(config: RunConfig, platform: str) -> list[str]:
  """Lists what a user should know before a training of this config on a platform, in words."""
  dtype = getattr(config.model, "dtype", "float32")  # a network of one's own may have none
  takes_onednn = getattr(config.model, "conv", "") == "onednn"
  notes = [_ABSENT] if takes_onednn and not has_onednn() else []
  if dtype == "bfloat16" and platform == "cpu" and not (takes_onednn and multiplies_bfloat16()):
    notes.append(_NO_GAIN + (_GAIN if multiplies_bfloat16() else ""))
  return notes


def count_foreground(config: RunConfig, steps: int) -> float:
  """Returns the fraction of foreground among the labelled voxels of the first training steps."""
  fold = open_fold(config.data)
  margin = build_run_network(config, len(fold.mapping.classes) + 1).output_margin
  return measure_foreground(config, fold.load("training"), steps, margin)


def describe_network(config: RunConfig) -> dict[str, Any]:
  """Returns size and cost of the configured network."""
  classes = class_names(config.data.labels)
  if "model.conv" in flatten(config):
    # Operations are those of the direct convolution, whichever implementation is configured.
    config = replace_keys(config, {"model.conv": "native"})
  module = build_run_network(config, len(classes) + 1)
  # Shapes only: no parameter is allocated.
  state = abstract_state(config, module)
  batch, patch = config.train.batch_size, config.data.patch
  operations, activations = forward_cost(module, state, (batch, *patch, 1))
  # One micro-batch is in memory at a time.
  activations //= config.train.accumulate
  state_bytes = _count_bytes(state)
  return {
    "model": config.model.name,
    "classes": ["background", *classes],
    "parameters": _count_numbers(state.params),
    "parameters_by_module": {
      name: _count_numbers(tree) for name, tree in sorted(state.params.items())
    },
    "patch": list(patch),
    "batch_size": batch,
    # A backward pass takes about twice the operations of a forward pass.
    "train_step_operations": 3 * operations,
    "inference_operations_per_window": operations // batch,
    "train_step_activation_bytes": activations,
    # Gradients are as large as the parameters. Temporary arrays of the backward pass are not
    # counted.
    "train_memory_estimate_bytes": state_bytes + _count_bytes(state.params) + activations,
    "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
    "onednn": {"is_built": has_onednn(), "gains_by_bfloat16": multiplies_bfloat16()},
  }


def count_parameters(config: RunConfig) -> int:
  """Returns the number of parameters of the configured network; none are allocated."""
  module = build_run_network(config, len(class_names(config.data.labels)) + 1)
  return _count_numbers(abstract_state(config, module).params)


def describe_target(config: RunConfig, name: str) -> dict[str, Any]:
  """Returns the memory that the training step needs on a device that need not be present.

  Args:
    config: a run's config.
    name: see `topology.devices`.

  Raises:
    UserError: there are no such devices, or the config does not fit their number.
  """
  there = topology.describe_devices(name)
  module = build_run_network(config, len(class_names(config.data.labels)) + 1)
  data = topology.describe_training_set(config, module, config.data.patch, scans=1)
  told: dict[str, Any] = {
    "device": there[0].device_kind,
    "mesh": mesh_shape(config, len(there)),
  }
  try:
    held = topology.compile_for_devices(config, module, data, there).memory_analysis()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    # A step that does not fit is a result here, and no failure.
    return told | {"fits": False, "reason": str(error).splitlines()[0]}
  assert held is not None
  # Donated arguments share their memory with the results: they count once.
  kept = held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes
  needed = kept + held.temp_size_in_bytes
  gpu = topology.GPUS.get(name.partition(":")[0])
  return told | {
    "temporary_bytes": held.temp_size_in_bytes,
    "memory_bytes": needed,
    "fits": not gpu or needed <= _PART_OF_GPU * gpu.memory,
  }


def _count_numbers(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _count_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
