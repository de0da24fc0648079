r"""Trains a tiny network on one to eight simulated devices; prints what came out, as JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_ENABLE_X64=1 \\
    python -m tests.parallel_steps FOLDER unet float64 adam 4 64 jit-1x1 jit-4x2 pmap-4x1-local

After the folder: network, type, optimiser, the batch, the patch's X, and the runs: mode, devices
over data and space, `local` for batch statistics of each device, `gates` for two gates a skip
instead of one, and `packed` for convolutions as on a GPU. A program of its own, since the number of
devices is fixed when JAX starts. Each run's last state is saved in FOLDER/NAME, as numbers that a
process without float64 can restore.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.patches.device_source import ResidentSet, make_resident
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import get_first_device_copy, replicate, select_devices
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState, abstract_state
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.collectives import collectives
from benchmarks.scaling import figures
from tests.configs import small_config, with_keys

STEPS = 5


def _config(
  name: str, network: str, dtype: str, optimizer: str, batch: int, length: int
) -> RunConfig:
  """The config of a run, from its name and the command line; its type, see `_module`."""
  mode, shape, *options = name.split("-")
  data, space = map(int, shape.split("x"))
  keys: dict[str, Any] = {
    "model.name": network,
    # With "auto" a CPU would take another form, which a patch that is divided must not.
    "model.conv": "auto" if space > 1 else "native",
    "data.patch": (length, 16, 16),
    "augment.flip": (0.5, 0.5, 0.5),
    "augment.rotate_deg": (0.0, 0.0, 15.0),
    "augment.noise_sd": (0.0, 0.1),
    "optimizer.name": optimizer,
    "train.batch_size": batch,
    "parallel.mode": mode,
    "parallel.data": data,
    "parallel.space": space,
    "parallel.batch_norm": "local" if "local" in options else "global",
  }
  if network == "attention_unet":
    keys["model.gates"] = 2 if "gates" in options else 1
  elif network == "unet3d":
    keys["model.padding"] = "SAME"
  if "packed" in options:
    keys["model.conv"] = "packed"
  # At 1e-2 rounding of float32 grows five times a step, on any division; at 2e-3 it did so forty
  # times in one step of one kind of processor. Adam steps as far for a gradient that is rounding
  # alone: at 2e-3 losses were 2e-3 apart after four steps. The paper trains by Adam at 1e-4.
  if optimizer == "sgd":
    keys["optimizer.learning_rate"] = 1e-3
  elif dtype == "float32":
    keys["optimizer.learning_rate"] = 1e-4
  return small_config(**keys)


def _module(config: RunConfig, dtype: str) -> nn.Module:
  """The network, in a type of the command line: no config can ask for float64."""
  return build_run_network(config, 2).clone(dtype=jnp.dtype(dtype))


def _set(length: int) -> ResidentSet:
  rng = np.random.default_rng(0)
  cases = []
  for name in "abc":
    image = rng.integers(-200, 300, (length + 12, 26, 24)).astype(np.int16)
    cases.append(WorkingCase(name, image, (image > 200).astype(np.uint8), 0.0, 1.0))
  return make_resident(cases, (length, 16, 16))


def _start(recipe: TrainingRecipe, module: nn.Module) -> TrainState:
  """Parameters of about the size that they start with, drawn without compiling anything."""
  rng = np.random.default_rng(1)

  def draw(path, like):
    if path[-1].key == "bias":
      return rng.normal(0, 0.1, like.shape)
    if path[-1].key == "scale":
      return rng.normal(1, 0.02, like.shape)
    return rng.normal(0, np.sqrt(2 / np.prod(like.shape[:-1])), like.shape)

  shapes = abstract_state(recipe, module)
  params = jax.tree_util.tree_map_with_path(draw, shapes.params)
  statistics = jax.tree_util.tree_map_with_path(
    lambda path, like: np.full(like.shape, float(path[-1].key == "var")), shapes.batch_stats
  )
  moments = jax.tree.map(
    lambda x: np.zeros(x.shape, np.int32 if x.dtype == jnp.int32 else np.float64), shapes.opt_state
  )
  return TrainState(np.zeros((), np.int32), params, statistics, moments)


def _run(
  recipe: TrainingRecipe, module: nn.Module, state: TrainState, data: ResidentSet
) -> tuple[list, TrainState, str, bool]:
  """Losses, the last state, with `jit` the compiled text, and whether steps consume their state."""
  step, text = compile_step(recipe, module), ""
  state, data = replicate(recipe, jax.device_put((state, data)))
  if recipe.parallel.mode == "jit":
    step = step.lower(state, data).compile()
    text = step.as_text()
  losses, consumed = [], True
  for _ in range(STEPS):
    before = jax.tree.leaves(state)
    with jax.transfer_guard("disallow"):
      state, outcome = step(state, data)
    losses.append(float(outcome.loss))
    consumed &= all(leaf.is_deleted() for leaf in before)
  return losses, state, text, consumed


def _numbers(tree) -> list[float]:
  return [float(number) for x in jax.tree.leaves(tree) for number in np.ravel(x)]


def _gathered(text: str) -> list[int]:
  """Numbers of float32 values that a program's gathers each bring."""
  shapes = re.findall(r"= f32\[([\d,]+)\]\S* gather\(", text)
  return [math.prod(map(int, shape.split(","))) for shape in shapes]


def _refusals() -> dict[str, str]:
  def changed(name: str, **changes: Any) -> RunConfig:
    return with_keys(_config(name, "attention_unet", "float64", "adam", 8, 64), changes)

  said = {}
  for name, config in {
    "absent": changed("jit-3x3"),
    "left out": changed("jit-0x3", **{"train.batch_size": 2}),
    "odd": changed("jit-0x1", **{"train.batch_size": 12}),
    "uneven": changed("pmap-0x1", **{"loss.focal": 1.0}),
  }.items():
    try:
      select_devices(config)
    except UserError as error:
      said[name] = str(error)
  return said


def _counted() -> dict[str, Any]:
  """What benchmarks/scaling.py tells of V-Net, which has no batch statistics, on two devices."""
  config = _config("jit-2x1", "vnet", "float32", "sgd", 2, 16)
  return figures(config, jax.devices(), scans=3)


def _save(state: TrainState, folder: Path) -> None:
  with open_checkpoints(folder, 1) as store:
    narrow = jax.tree.map(_narrow, (state.params, state.batch_stats))
    store.save(TrainState(state.step, *narrow, opt_state=()))


def _narrow(x: jax.Array) -> jax.Array:
  return jax.device_put(np.asarray(x, np.float32), x.sharding)


def main() -> None:
  folder, kinds, names = Path(sys.argv[1]), sys.argv[2:5], sys.argv[7:]
  batch, length = map(int, sys.argv[5:7])
  configs = {name: _config(name, *kinds, batch, length) for name in names}
  modules = {name: _module(config, kinds[1]) for name, config in configs.items()}
  data, start = _set(length), _start(configs[names[0]], modules[names[0]])
  result = {"refusals": _refusals(), "start": _numbers(start.params), "counted": _counted()}
  for name, config in configs.items():
    losses, state, text, consumed = _run(config, modules[name], start, data)
    seen = get_first_device_copy(state)
    _save(state, folder / name)
    result[name] = {
      "losses": losses,
      "consumed": consumed,
      "devices": [len(tree.step.devices()) for tree in (state, seen)],
      "params": _numbers(seen.params),
      "batch_stats": _numbers(seen.batch_stats),
      "collectives": collectives(text, jax.device_count()),
      "gathered": _gathered(text),
    }
  print(json.dumps(result))


if __name__ == "__main__":
  main()
