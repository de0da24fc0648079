"""Trains a tiny network in float64 on one to four simulated devices; prints what came out, as JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 \\
    python -m tests.parallel_steps FOLDER jit1 jit4 pmap2

A program of its own, since the number of devices is fixed when JAX starts. Each run's last state is
saved in FOLDER/NAME, as numbers that a process without float64 can restore.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from attn_unet_jax.data.prepare import WorkingCase
from attn_unet_jax.data.resident import Resident, resident
from attn_unet_jax.errors import UserError
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.parallel import compile_step, devices, on_first_device, spread
from attn_unet_jax.training.state import TrainState, abstract, network
from tests.conftest import small_config

STEPS = 3


def _config(mode: str, count: int) -> ConfigDict:
  config = small_config()
  config.model.conv, config.model.dtype = "native", "float64"
  config.model.gates = 1
  config.augment.flip = (0.5, 0.5, 0.5)
  config.augment.rotate_deg, config.augment.noise_sd = (0.0, 0.0, 15.0), (0.0, 0.1)
  config.train.batch_size = 4
  config.parallel.mode, config.parallel.data = mode, count
  return config


def _set() -> Resident:
  rng = np.random.default_rng(0)
  cases = []
  for name in "abc":
    image = rng.integers(-200, 300, (28, 26, 24)).astype(np.int16)
    cases.append(WorkingCase(name, image, (image > 200).astype(np.uint8), 0.0, 1.0))
  return resident(cases, (16, 16, 16))


def _start(config: ConfigDict) -> TrainState:
  """Parameters of about the size that they start with, drawn without compiling anything."""
  rng = np.random.default_rng(1)

  def draw(path, like):
    if path[-1].key == "bias":
      return rng.normal(0, 0.1, like.shape)
    if path[-1].key == "scale":
      return rng.normal(1, 0.02, like.shape)
    return rng.normal(0, np.sqrt(2 / np.prod(like.shape[:-1])), like.shape)

  shapes = abstract(config, network(config, 2))
  params = jax.tree_util.tree_map_with_path(draw, shapes.params)
  statistics = jax.tree_util.tree_map_with_path(
    lambda path, like: np.full(like.shape, float(path[-1].key == "var")), shapes.batch_stats
  )
  moments = jax.tree.map(
    lambda x: np.zeros(x.shape, np.int32 if x.dtype == jnp.int32 else np.float64), shapes.opt_state
  )
  return TrainState(np.zeros((), np.int32), params, statistics, moments)


def _run(config: ConfigDict, state: TrainState, data: Resident) -> tuple[list, TrainState, str]:
  """Losses, the last state and, with `jit`, the compiled text."""
  step, text = compile_step(config, network(config, 2)), ""
  state, data = spread(config, jax.device_put((state, data)))
  if config.parallel.mode == "jit":
    step = step.lower(state, data).compile()
    text = step.as_text()
  losses = []
  for _ in range(STEPS):
    with jax.transfer_guard("disallow"):
      state, outcome = step(state, data)
    losses.append(float(outcome.loss))
  return losses, state, text


def _numbers(tree) -> list[float]:
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).tolist()


def _exchanges(text: str) -> list[str]:
  """Kinds of the collective operations of a compiled program."""
  kinds = r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-[a-z-]+?)(?:-start)?\("
  return sorted(set(re.findall(kinds, text)))


def _refusals() -> dict[str, str]:
  odd, uneven = _config("jit", 0), _config("pmap", 0)
  odd.train.batch_size = 6
  uneven.loss.focal = 1.0
  said = {}
  for name, config in {"absent": _config("jit", 5), "odd": odd, "uneven": uneven}.items():
    try:
      devices(config)
    except UserError as error:
      said[name] = str(error)
  return said


def _save(state: TrainState, folder: Path) -> None:
  with checkpoints(folder, 1) as store:
    narrow = jax.tree.map(_narrow, (state.params, state.batch_stats))
    store.save(TrainState(state.step, *narrow, opt_state=()))


def _narrow(x: jax.Array) -> jax.Array:
  return jax.device_put(np.asarray(x, np.float32), x.sharding)


def main() -> None:
  folder, names = Path(sys.argv[1]), sys.argv[2:]
  data, start = _set(), _start(_config("jit", 1))
  result = {"refusals": _refusals(), "start": _numbers(start.params)}
  for name in names:
    config = _config(name[:-1], int(name[-1]))
    losses, state, text = _run(config, start, data)
    seen = on_first_device(state)
    _save(state, folder / name)
    result[name] = {
      "losses": losses,
      "devices": [len(tree.step.devices()) for tree in (state, seen)],
      "params": _numbers(seen.params),
      "batch_stats": _numbers(seen.batch_stats),
      "exchanges": _exchanges(text),
    }
  print(json.dumps(result))


if __name__ == "__main__":
  main()
