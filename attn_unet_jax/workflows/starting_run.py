"""Opens what a run starts from: the checkpoints that `config.init.workdir` names."""

import re
from pathlib import Path

from flax import linen as nn

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.builtin import announce_releases, find_run, name_run, split_runs
from attn_unet_jax.runs.release import is_release, read_release
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.weights.from_run import OtherRun, StartingRun, check_starting_run
from attn_unet_jax.workflows.load_run import load_best

_FLAG = "config.init.workdir"


def open_starting_run(config: RunConfig, module: nn.Module) -> StartingRun | None:
  """Opens the runs that `config.init.workdir` names; None where a run starts from random weights.

  Raises:
    UserError: there is no such run or checkpoint, or its weights do not fit this network.
  """
  if not config.init.workdir:
    return None
  others: list[OtherRun] = []
  for workdir, step in _read_starts(config.init.workdir):
    found = load_best(workdir, step)
    others.append(OtherRun(workdir, found.classes, found.variables, found.step))
  releases = [one for one in dict.fromkeys(other.workdir for other in others) if is_release(one)]
  announce_releases(releases)
  for workdir in releases:
    if (count := read_release(workdir).networks) > 1:
      print_line(f"started from the first of the {count} networks of {name_run(workdir)}")
  _refuse_repeated(config.init.workdir, others)
  return check_starting_run(config, config.model, module, others)


def _read_starts(text: str) -> list[tuple[Path, int | None]]:
  """Reads the folders of runs, with the step where `@STEP` asks for another than the best."""
  return [_read_start(name) for name in split_runs(text, _FLAG)]


def _read_start(name: str) -> tuple[Path, int | None]:
  # A folder may have an @ in its own name.
  asked = None if Path(name).exists() else re.fullmatch(r"(.+)@(\d+)", name)
  run, step = (asked[1], int(asked[2])) if asked else (name, None)
  return find_run(run).expanduser(), step


def _refuse_repeated(text: str, others: list[OtherRun]) -> None:
  """Refuses a mean in which a checkpoint counts twice, such as RUN,RUN@STEP of its best step."""
  seen = set()
  for other in others:
    # By the step that was loaded: the best one may be the one that is also named.
    checkpoint = other.workdir.resolve(), other.step
    if checkpoint in seen:
      raise UserError(f"--{_FLAG}={text}: {other} is there twice; name each checkpoint once")
    seen.add(checkpoint)
