"""Trains a tiny network in float64 on one to four simulated devices; prints what came out, as JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.parallel_steps FOLDER

A program of its own, since the number of devices is fixed when JAX starts. A state that four
devices made is saved in FOLDER.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.data.prepare import WorkingCase
from attn_unet_jax.data.resident import Resident, resident
from attn_unet_jax.errors import UserError
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.parallel import compile_step, devices, on_first_device, spread
from attn_unet_jax.training.state import TrainState, create, network
from tests.conftest import small_config

STEPS = 3
RUNS = {"one": ("jit", 1), "jit2": ("jit", 2), "jit4": ("jit", 4), "pmap4": ("pmap", 4)}


def _config(mode="jit", count=0):
  config = small_config()
  config.model.conv, config.model.dtype = "native", "float64"
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


def _start(config) -> TrainState:
  state = create(config, network(config, 2))
  wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
  return jax.tree.map(np.asarray, wide)


def _run(config, state, data) -> tuple[list[float], TrainState, str]:
  """Losses, the last state and, with `jit`, the compiled text."""
  step, text = compile_step(config, network(config, 2)), ""
  state, data = spread(config, jax.device_put((state, data)))
  if config.parallel.mode == "jit":
    step = step.lower(state, data).compile()
    text = step.as_text()
  losses = []
  for _ in range(STEPS):
    with jax.transfer_guard("disallow"):
      state, loss = step(state, data)
    losses.append(float(loss))
  return losses, state, text


def _numbers(state) -> np.ndarray:
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])


def _gathered(text: str) -> int:
  """Elements of the largest array that devices gather from each other."""
  shapes = re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-gather|all-to-all)", text)
  return max((int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes), default=0)


def _refusals() -> dict[str, str]:
  too_many, odd, uneven = _config(count=5), _config(), _config("pmap")
  odd.train.batch_size = 6
  uneven.loss.focal = 1.0
  said = {}
  for name, config in {"too_many": too_many, "odd": odd, "uneven": uneven}.items():
    try:
      devices(config)
    except UserError as error:
      said[name] = str(error)
  return said


def main() -> None:
  data, start, first = _set(), _start(_config()), None
  result = {"refusals": _refusals()}
  for name, (mode, count) in RUNS.items():
    losses, state, text = _run(_config(mode, count), start, data)
    seen = on_first_device(state)
    first = seen if first is None else first
    result[name] = {
      "losses": losses,
      "devices": len(state.step.devices()),
      "seen_devices": len(seen.step.devices()),
      "parameters_off": float(np.abs(_numbers(seen.params) - _numbers(first.params)).max()),
      "statistics_off": float(
        np.abs(_numbers(seen.batch_stats) - _numbers(first.batch_stats)).max()
      ),
      "moved": float(np.abs(_numbers(seen.params) - _numbers(start.params)).max()),
      "gathered": _gathered(text),
      "reduces": text.count(" all-reduce"),
    }
    if name == "pmap4":
      with checkpoints(Path(sys.argv[1]), 1) as store:
        store.save(jax.tree.map(lambda x: x.astype(jnp.float32), state.replace(opt_state=())))
      result["sum"] = float(sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(seen.params)))
    if "--text" in sys.argv:
      Path(f"/tmp/par_{name}.txt").write_text(text)
  print(json.dumps(result))


if __name__ == "__main__":
  main()
