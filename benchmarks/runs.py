"""Training runs of a benchmark: the project's own commands, and what their folders tell."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from attn_unet_jax.config import stored as stored_config
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.network import network
from attn_unet_jax.training.state import abstract


def command(name: str, *arguments: str) -> None:
  """Runs one of the project's commands to its end.

  Raises:
    SystemExit: it failed, with its status; it said why.
  """
  process(f"attn_unet_jax.{name}", *arguments)


def process(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
  """Runs a module in a process of its own, to its end; None is this process's environment.

  Raises:
    SystemExit: as of `command`.
  """
  command_line = [sys.executable, "-m", module, *arguments]
  done = subprocess.run(command_line, env=env, check=False)
  if done.returncode:
    raise SystemExit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def train(experiment: str, workdir: Path, *flags: str) -> None:
  """Trains and tests a run, or goes on with it; one that is done stays as it is.

  `experiment` is a file of `experiments/` with its variant; the flags are those of
  `attn_unet_jax.main`.

  Raises:
    UserError: what is done there was trained by another config.
    SystemExit: as of `command`.
  """
  arguments = (f"--config=experiments/{experiment}", f"--workdir={workdir}", *flags)
  if is_done(workdir):
    _require_same(workdir, arguments)
    return
  workdir.parent.mkdir(parents=True, exist_ok=True)
  command("main", *arguments)


def _require_same(workdir: Path, arguments: tuple[str, ...]) -> None:
  differing = stored_config.difference(config_of(workdir), asked(*arguments))
  if differing:
    named = ", ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differing.items())
    raise UserError(
      f"{workdir}: holds a run of another config ({named}); move it away, or name another --workdir"
    )


def asked(*arguments: str) -> ConfigDict:
  """The config that `attn_unet_jax.main` makes of its arguments."""
  known = absl_flags.FlagValues()
  argv = ["main", *(value for value in arguments if value.startswith("--config"))]
  flag = config_flags.DEFINE_config_file("config", flag_values=known, sys_argv=argv)
  known(argv)
  return flag.value


def is_done(workdir: Path) -> bool:
  """Whether a run was trained and tested to its end."""
  return record(workdir).get("exit") == "done"


def record(workdir: Path) -> dict[str, Any]:
  """What a run's `run.json` says; empty where there is none."""
  path = workdir / "run.json"
  return json.loads(path.read_text()) if path.is_file() else {}


def parameters(workdir: Path) -> int:
  """Numbers that are trained, of the network, or of the three that a run in stages keeps."""
  return sum(_parameters(folder) for folder in _kept(workdir))


def step_seconds(workdir: Path) -> float | None:
  """Of a step: the median of the epochs' means without the first, which compiles.

  None for a run in stages, whose networks and patches are of several sizes.
  """
  steps = config_of(workdir).train.steps_per_epoch
  rows = read_metrics(workdir / "metrics.csv")[1:]
  return statistics.median(float(row["train_seconds"]) / steps for row in rows) if rows else None


def config_of(workdir: Path) -> ConfigDict:
  """The config of a run, or of the whole of one in stages."""
  return stored_config.load(workdir / "config.json")


def _kept(workdir: Path) -> list[Path]:
  return [workdir] if (workdir / "metrics.csv").is_file() else sorted(workdir.glob("stage*/"))


def _parameters(workdir: Path) -> int:
  config = config_of(workdir)
  module = network(config, len(class_names(config.data.labels)) + 1)
  return sum(leaf.size for leaf in jax.tree.leaves(abstract(config, module).params))
