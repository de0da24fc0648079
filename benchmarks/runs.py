"""Training runs of a benchmark: the project's own commands, and what their folders tell."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides, take_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.config.stored import find_differences, load_config
from attn_unet_jax.evaluation.compared_runs import ScoredRun, read_run
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network


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
  differing = find_differences(config_of(workdir), build_asked_config(*arguments))
  if differing:
    named = ", ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differing.items())
    raise UserError(
      f"{workdir}: holds a run of another config ({named}); move it away, or name another --workdir"
    )


def build_asked_config(*arguments: str) -> RunConfig:
  """Builds the config that `attn_unet_jax.main` makes of its arguments."""
  _, texts = take_overrides([flag for flag in arguments if flag.startswith("--config.")])
  experiment = next(flag for flag in arguments if flag.startswith("--config="))
  draft = load_experiment(experiment.removeprefix("--config="))
  apply_overrides(draft, texts)
  return resolve_draft(draft)


def read_scores(workdir: Path) -> ScoredRun:
  """Reads the scores of a run's test cases."""
  return read_run(workdir, lambda path: flatten(load_config(path)))


def is_done(workdir: Path) -> bool:
  """Whether a run was trained and tested to its end."""
  return record(workdir).get("exit") == "done"


def record(workdir: Path) -> dict[str, Any]:
  """What a run's `run.json` says; empty where there is none."""
  path = workdir / "run.json"
  return json.loads(path.read_text()) if path.is_file() else {}


def parameters(workdir: Path) -> int:
  """Numbers that are trained, of the network, or of the three that a run in stages keeps."""
  return sum(_parameters(folder) for folder in _list_kept_runs(workdir))


def step_seconds(workdir: Path) -> float | None:
  """Of a step: the median of the epochs' means without the first, which compiles.

  None for a run in stages, whose networks and patches are of several sizes.
  """
  steps = config_of(workdir).train.steps_per_epoch
  rows = read_metrics(workdir / "metrics.csv")[1:]
  return statistics.median(float(row["train_seconds"]) / steps for row in rows) if rows else None


def config_of(workdir: Path) -> RunConfig:
  """The config of a run, or of the whole of one in stages."""
  return load_config(workdir / "config.json")


def _list_kept_runs(workdir: Path) -> list[Path]:
  return [workdir] if (workdir / "metrics.csv").is_file() else sorted(workdir.glob("stage*/"))


def _parameters(workdir: Path) -> int:
  config = config_of(workdir)
  module = build_run_network(config, len(class_names(config.data.labels)) + 1)
  return sum(leaf.size for leaf in jax.tree.leaves(abstract_state(config, module).params))
