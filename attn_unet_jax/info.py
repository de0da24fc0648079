"""Says what a config asks of a machine, as JSON: parameters, operations, memory, devices.

  python -m attn_unet_jax.info --config=experiments/pancreas.py

Starts no training and reads no data, unless --count_foreground=STEPS asks for the part of
foreground in the patches of so many steps: the number for --config.loss_options.foreground.
Operations are those of the direct convolutions and matrix products (a multiply-add is two), counted
in the traced program; a training step is three forward passes. Activation bytes are what a backward
pass keeps: the output of every convolution and normalisation. The memory estimate is these, the
state and the gradients; the training set, which lies in device memory too (3 bytes a voxel of the
working grid), comes on top.

--target=h100, or --target=v5e:2x4 with --config.train.batch_size=8, compiles the training step for
devices that need not be here, and says what it holds in the memory of each and whether that fits:
within three quarters of a GPU's, what JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says
otherwise, without cuDNN's workspaces. Here too the training set comes on top. Known are a100-40,
a100, h100, h200 with pip install '.[cuda]', and v5e, v5p, v6e with '.[tpu]'; it takes one to
several minutes.
"""

import json
import math
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.flags import checked_config
from attn_unet_jax.labels import class_names
from attn_unet_jax.patches.batch import foreground_part
from attn_unet_jax.runtime import process
from attn_unet_jax.training import topology
from attn_unet_jax.training.cost import forward_cost
from attn_unet_jax.training.mesh import mesh_shape
from attn_unet_jax.training.network import network
from attn_unet_jax.training.state import abstract

config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")
_COUNT = flags.DEFINE_integer(
  "count_foreground", 0, "Steps whose patches are read to count foreground.", lower_bound=0
)
_TARGET = flags.DEFINE_string(
  "target", None, "Devices to compile the training step for, such as h100, h100:8 or v5e:4x4."
)

_PART_OF_GPU = 0.75  # what JAX takes of a GPU's memory


def main() -> None:
  """The command."""
  config = checked_config(data=bool(_COUNT.value))
  target: dict[str, Any] = {}
  if _TARGET.value is not None:
    # Else its plugin says that it finds no such device.
    jax.config.update("jax_platforms", "cpu")
    target = {"target": on_target(config, _TARGET.value)}
  counted = {"foreground": foreground(config, _COUNT.value)} if _COUNT.value else {}
  print(json.dumps(describe(config) | counted | target, indent=2))


def foreground(config: ConfigDict, steps: int) -> float:
  """Part of the training's labelled voxels that is foreground, over the first steps."""
  fold = open_fold(config)
  margin = network(config, len(fold.mapping.classes) + 1).output_margin
  return foreground_part(config, fold.load("training"), steps, margin)


def describe(config: ConfigDict) -> dict[str, Any]:
  """Everything the command prints."""
  classes = class_names(config.data.labels)
  config = config.copy_and_resolve_references()
  config.model.conv = "native"  # so that the count is the direct convolution's
  module = network(config, len(classes) + 1)
  state = abstract(config, module)
  batch, patch = config.train.batch_size, config.data.patch
  operations, activations = forward_cost(module, state, (batch, *patch, 1))
  activations //= config.train.accumulate
  state_bytes = _bytes(state)
  return {
    "model": config.model.name,
    "classes": ["background", *classes],
    "parameters": _count(state.params),
    "parameters_by_module": {name: _count(tree) for name, tree in sorted(state.params.items())},
    "patch": list(patch),
    "batch_size": batch,
    "train_step_operations": 3 * operations,
    "inference_operations_per_window": operations // batch,
    "train_step_activation_bytes": activations,
    # Gradients are as large as the parameters; what a backward pass holds beside is not counted.
    "train_memory_estimate_bytes": state_bytes + _bytes(state.params) + activations,
    "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
  }


def on_target(config: ConfigDict, name: str) -> dict[str, Any]:
  """What the training step holds in the memory of a device that need not be here.

  Args:
    config: a run's config.
    name: see `topology.devices`.

  Raises:
    UserError: no such devices, or the config does not fit their number.
  """
  there = topology.devices(name)
  module = network(config, len(class_names(config.data.labels)) + 1)
  data = topology.training_set(config, module, config.data.patch, scans=1)
  told: dict[str, Any] = {
    "device": there[0].device_kind,
    "mesh": mesh_shape(config, len(there)),
  }
  try:
    held = topology.compiled_step(config, module, data, there).memory_analysis()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return told | {"fits": False, "reason": str(error).splitlines()[0]}
  assert held is not None
  kept = held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes
  needed = kept + held.temp_size_in_bytes
  gpu = topology.GPUS.get(name.partition(":")[0])
  return told | {
    "temporary_bytes": held.temp_size_in_bytes,
    "memory_bytes": needed,
    "fits": not gpu or needed <= _PART_OF_GPU * gpu.memory,
  }


def _count(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
  process.run_command(main)
