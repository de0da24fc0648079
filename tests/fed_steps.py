r"""Trains the smallest network from either source on simulated devices; prints the results as JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 JAX_ENABLE_X64=1 \\
    python -m tests.fed_steps DATA_DIR FOLDER resident-jit-1x1 streaming-pmap-4x1 ...

Names are source, mode, devices over data and space. A program of its own, since the number of
devices is fixed when JAX starts.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.epoch_end import ValidationScore
from attn_unet_jax.training.loop import train_network
from tests.configs import small_config, with_keys
from tests.line import Line


class Divisible(Line):
  """A line whose patch can be divided."""

  conv: str = "native"
  kernel_size = 1


def configured(name: str, data_dir: str) -> RunConfig:
  """The config of a run, from its name."""
  source, mode, shape = name.split("-")
  data, space = map(int, shape.split("x"))
  return small_config(
    **{
      "data.dir": data_dir,
      "data.source": source,
      "augment.flip": (0.5, 0.5, 0.5),
      "augment.shift": (0.0, 0.1, 0.0),
      "augment.histogram_probability": 0.5,
      "train.batch_size": 8,
      "train.accumulate": 2,
      "train.validate_every": 2,
      "parallel.mode": mode,
      "parallel.data": data,
      "parallel.space": space,
    }
  )


def main() -> None:
  data_dir, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
  result = {}
  for name in names:
    config, workdir = configured(name, data_dir), folder / name
    config = with_keys(config, {"data.prepared": str(folder / "prepared")})
    workdir.mkdir()
    with open_checkpoints(workdir / "checkpoints", 1) as store:
      module = Divisible(dtype=jnp.float64)
      load = open_fold(config.data).load
      state = train_network(
        config, module, load, lambda _: ValidationScore(0.5, 1, 1), store, workdir
      )
    params = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    result[name] = {"devices": len(state.step.devices()), "params": params.tolist()}
  print(json.dumps(result))


if __name__ == "__main__":
  main()
