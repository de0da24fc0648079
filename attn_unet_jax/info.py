"""Says what a config asks of a machine, as JSON: parameters, operations, memory, devices.

  python -m attn_unet_jax.info --config=experiments/pancreas.py

Starts no training and reads no data, unless --count_foreground=STEPS asks for the part of
foreground in the patches of so many steps: the number for --config.loss_options.foreground.
Operations are those of the direct convolutions and matrix products (a multiply-add is two), counted
in the traced program; a training step is three forward passes. Activation bytes are what a backward
pass keeps: the output of every convolution and normalisation. The memory estimate is these, the
state and the gradients; the training set, which lies in device memory too (3 bytes a voxel of the
working grid), comes on top.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import linen as nn
from jax.extend import core
from ml_collections import ConfigDict, config_flags

from attn_unet_jax import command
from attn_unet_jax.data.fold import open_fold
from attn_unet_jax.data.labels import class_names
from attn_unet_jax.data.patches import foreground_part
from attn_unet_jax.training.state import TrainState, abstract, network

config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")
_COUNT = flags.DEFINE_integer(
  "count_foreground", 0, "Steps whose patches are read to count foreground.", lower_bound=0
)


def main() -> None:
  """The command."""
  config = command.checked_config(data=bool(_COUNT.value))
  counted = {"foreground": foreground(config, _COUNT.value)} if _COUNT.value else {}
  print(json.dumps(describe(config) | counted, indent=2))


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


def forward_cost(module: nn.Module, state: TrainState, shape: tuple[int, ...]) -> tuple[int, int]:
  """Operations of a training forward pass, and bytes of the activations that it must keep."""

  def forward(variables: Any, image: jax.Array) -> Any:
    rngs = {"dropout": jax.random.key(0)}
    return module.apply(variables, image, train=True, mutable=["batch_stats"], rngs=rngs)

  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  jaxpr = jax.make_jaxpr(forward)(state.variables, image)
  operations = activations = 0
  for equation in _equations(jaxpr.jaxpr):
    output: Any = equation.outvars[0].aval
    name = equation.primitive.name
    if name in ("conv_general_dilated", "dot_general"):
      operations += 2 * output.size * _contracted(equation)
      # A product, then its normalisation: each output is kept twice.
      activations += 2 * output.size * output.dtype.itemsize
  return operations, activations


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
  for equation in jaxpr.eqns:
    inner = list(_inner(equation))
    if inner:
      for sub in inner:
        yield from _equations(sub)
    else:
      yield equation


def _inner(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
  for value in equation.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        yield item.jaxpr
      elif isinstance(item, core.Jaxpr):
        yield item


def _contracted(equation: Any) -> int:
  """Multiply-adds per output value of a product."""
  if equation.primitive.name == "dot_general":
    (axes, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
  kernel = equation.invars[1].aval
  out_axis = equation.params["dimension_numbers"].rhs_spec[0]
  return kernel.size // kernel.shape[out_axis]


def _count(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
  command.run(main)
