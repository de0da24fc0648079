"""Trains every system on the same phantoms, each network on as many patches; writes their table.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.systems --data_dir=data --workdir=runs/systems

Each is the `phantom` variant of its experiment: narrower than published (the table has the
divisor, and what else departs from the paper), 640 steps of two patches of 48^3 voxels of 3 mm, one
seed; each network of a system in stages has as many patches, of 32^3: it looks inside boxes. Only
the project's commands are called, so a start goes on where the last one stopped, and a system that
was tested stays as it is. The table is a section of docs/reference/results.md; --systems=vnet,hnn
trains these and leaves the others for another start, and the table has all that are done beside
Attention U-Net, which all are tested against. About two hours on two cores, and HNN's nine
trainings beyond that.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import compare_scores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.page import write_section
from benchmarks.recipes import REFERENCE, SYSTEMS, System
from benchmarks.result import keep, machine
from benchmarks.tables import METRICS, papers_table, systems_table

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_SYSTEMS = flags.DEFINE_list("systems", list(SYSTEMS), f"Some of {', '.join(SYSTEMS)}.")
_PAGE = flags.DEFINE_string("page", "docs/reference/results.md", "Page to write the table into.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/systems.json", "JSON to write.")


def main() -> None:
  """Trains, compares, prints and writes."""
  folder, on = Path(_WORKDIR.value or ""), machine()
  if unknown := set(_SYSTEMS.value or ()) - set(SYSTEMS):
    raise UserError(f"--systems={','.join(unknown)}: some of {', '.join(SYSTEMS)}")
  for key in _SYSTEMS.value or ():
    train(key, folder)
  done = {key: folder / key for key in SYSTEMS if runs.is_done(folder / key)}
  for key in done:
    train(key, folder)  # refuses what another config made
  if REFERENCE not in done or len(done) < 2:
    print(f"no table yet: it takes {REFERENCE} and another system", file=sys.stderr)
    return
  told = [describe_system(SYSTEMS[key], workdir) for key, workdir in done.items()]
  scored = [runs.read_scores(workdir) for workdir in done.values()]
  table = compare_scores(scored, METRICS)
  keep({"machine": on, "systems": [*map(with_scores, told, scored)]}, _OUTPUT.value)
  text = f"{systems_table(told, table)}\n\n{papers_table(told)}"
  print(text)
  write_section(Path(_PAGE.value), "systems", text)
  print(f"a section of {_PAGE.value}", file=sys.stderr)


def train(key: str, folder: Path) -> None:
  """Trains a system to its end, if it is not done."""
  system, data = SYSTEMS[key], f"--config.data.dir={_DATA_DIR.value}"
  runs.train(system.experiment, folder / key, data, *system.flags)


def describe_system(system: System, workdir: Path) -> dict[str, Any]:
  """What a row says beside its scores; seconds are of the machine that trained it."""
  record = runs.record(workdir)
  return {
    "name": system.name,
    "command": " ".join([f"experiments/{system.experiment}", *system.flags]),
    "published": system.published,
    "departs": system.departs,
    "feature_scale": runs.config_of(workdir).model.feature_scale,
    "parameters": runs.parameters(workdir),
    "step_seconds": runs.step_seconds(workdir),
    "wall_seconds": record.get("total_wall_seconds", record["wall_seconds"]),
    "git_revision": record["git_revision"],
  }


def with_scores(told: dict[str, Any], scored: ScoredRun) -> dict[str, Any]:
  """A system and the scores of its cases, for the JSON."""
  return {**told, "checkpoint_step": scored.step, "scores": scored.scores}


if __name__ == "__main__":
  run_command(main)
