"""Training runs of a benchmark: the project's own commands, and what their folders tell."""

import statistics
import subprocess
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

from attn_unet_jax import config as config_keys
from attn_unet_jax.data.labels import class_names
from attn_unet_jax.training.logs import read_metrics
from attn_unet_jax.training.state import abstract, network


def command(name: str, *arguments: str) -> None:
  """Runs one of the project's commands to its end.

  Raises:
    CalledProcessError: it failed; it said why.
  """
  subprocess.run([sys.executable, "-m", f"attn_unet_jax.{name}", *arguments], check=True)


def train(experiment: str, workdir: Path, *flags: str) -> None:
  """Trains and tests a run, or goes on with it; one that is done stays as it is.

  `experiment` is a file of `experiments/` with its variant; the flags are those of
  `attn_unet_jax.main`.
  """
  workdir.parent.mkdir(parents=True, exist_ok=True)
  if not is_done(workdir):
    command("main", f"--config=experiments/{experiment}", f"--workdir={workdir}", *flags)


def is_done(workdir: Path) -> bool:
  """Whether a run was trained and tested to its end."""
  record = workdir / "run.json"
  return record.is_file() and '"exit": "done"' in record.read_text()


def parameters(workdir: Path) -> int:
  """Numbers that are trained, of the network, or of the three that a run in stages keeps."""
  return sum(_parameters(folder) for folder in _kept(workdir))


def training_seconds(workdir: Path) -> tuple[float, float]:
  """Of a step (median of the epochs' means, one network's), and of all training steps."""
  logs = [(file.parent, read_metrics(file)) for file in sorted(workdir.rglob("metrics.csv"))]
  of_steps = [
    float(row["train_seconds"]) / config_of(folder).train.steps_per_epoch
    for folder, rows in logs
    for row in rows
  ]
  total = sum(float(row["train_seconds"]) for _, rows in logs for row in rows)
  return statistics.median(of_steps), total


def config_of(workdir: Path) -> ConfigDict:
  """The config of a run, or of the whole of one in stages."""
  return config_keys.load(workdir / "config.json")


def _kept(workdir: Path) -> list[Path]:
  return [workdir] if (workdir / "metrics.csv").is_file() else sorted(workdir.glob("stage*/"))


def _parameters(workdir: Path) -> int:
  config = config_of(workdir)
  module = network(config, len(class_names(config.data.labels)) + 1)
  return sum(leaf.size for leaf in jax.tree.leaves(abstract(config, module).params))
