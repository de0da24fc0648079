"""Facts about a run, as its files say them: for its page and its model card."""

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.folds import ALSO, PARTS, FoldChoice
from attn_unet_jax.cases.second_set import second_options
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runtime.console import format_duration
from attn_unet_jax.runtime.files import read_json_object
from attn_unet_jax.workflows.describe_needs import count_parameters
from attn_unet_jax.workflows.fold_runs import list_fold_runs
from attn_unet_jax.workflows.stages.chain import BOUNDARY, FIRST, INTERIOR

SECOND_SET = "second data set"
START = "started from"
# What is in such data, whose scores say nothing of patients.
_DRAWN = {
  "phantom_ct": "scans are phantoms, drawn by a program",
  "painted_ct": "images were painted by a program on label maps",
}
WAY_OUT = "put it right, or remove it: the report goes on without it"


def list_facts(
  config: RunConfig, record: Mapping[str, Any], workdir: Path, summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
  """Lists what is known about data, recipe, machine and time.

  Args:
    config: the run's.
    record: the content of its `run.json`.
    workdir: its folder.
    summary: the content of its `summary.json`.

  Raises:
    UserError: `folds.json` is damaged.
  """
  keys = flatten(config)
  # `loss.external` is no number, and a weight of 0 is no term.
  losses = [f"{name[5:]} {keys[name]:g}" for name in keys if name.startswith("loss.")
            and isinstance(keys[name], float) and keys[name]]  # fmt: skip
  patch = " x ".join(map(str, config.data.patch))
  facts = [
    ("data", config.data.folder or f"{config.data.dataset} in {config.data.dir}"),
    ("cases", count_cases(workdir, config.data.fold)),
    ("labels", config.data.labels.replace(",", ", ")),
    ("network", config.model.name),
    ("parameters", " + ".join(f"{count:,}" for count in count_run_parameters(config, workdir))),
    ("patch", f"{patch} voxels of {config.data.spacing_mm:g} mm"),
    ("loss", ", ".join(losses)),
    ("optimiser", f"{config.optimizer.name}, rate {config.optimizer.learning_rate:g}"),
    (
      "epochs",
      f"{config.train.epochs} of {config.train.steps_per_epoch} steps, batches of "
      f"{config.train.batch_size}",
    ),
    ("seed", str(config.seed)),
  ]
  if config.data.also:
    # Below the cases of the run's own set.
    facts.insert(2, (SECOND_SET, describe_second_set(config.data.also, config, workdir)))
  if told := describe_start(record):
    facts.append((START, told))
  if "total_wall_seconds" in record:
    facts.append(("time", format_duration(float(record["total_wall_seconds"]))))
  if record.get("devices"):
    facts.append(("devices", _describe_devices(record)))
  if record.get("git_revision"):
    facts.append(("program", str(record["git_revision"])[:12]))
  if "checkpoint_step" in summary:
    facts.append(("scored checkpoint", f"step {summary['checkpoint_step']}"))
  return facts


def _describe_devices(record: Mapping[str, Any]) -> str:
  """Names each kind of device with its number; of a CPU, its cores."""
  counts = collections.Counter(str(device) for device in record["devices"])
  # JAX calls a CPU so, and takes all of its cores for one device.
  if [*counts] == ["cpu: cpu"]:
    return f"CPU, {record.get('cpu_count', 'unknown')} cores"
  # Stored as `platform: kind`.
  kinds = {device: device.partition(": ")[2] or device for device in counts}
  return ", ".join(f"{count} x {kinds[device]}" for device, count in counts.items())


def list_drawn(config: RunConfig) -> list[str]:
  """Returns a sentence about each data set of a run that a program drew."""
  said = []
  if drawn := _DRAWN.get(config.data.dataset.partition("/")[0]):
    said.append(f"Its {drawn}. Scores on them say nothing of patients.")
  second = second_options(config.data).dataset if config.data.also else ""
  if drawn := _DRAWN.get(second.partition("/")[0]):
    said.append(f"Of its {SECOND_SET}, which it was trained on, the {drawn}.")
  return said


def describe_start(record: Mapping[str, Any], *, with_place: bool = True) -> str:
  """Says which run, or mean of runs, a run started from; '' where it started from random weights.

  Args:
    record: what `run.json` says.
    with_place: whether the folder of that run is named, and not its name alone.
  """
  init = record.get("init")
  if not isinstance(init, dict):
    return ""
  # A run that started from one other has no list of several.
  members = init.get("mean_of", [init])
  told = [
    f"step {one.get('checkpoint_step')} of "
    f"{one['workdir'] if with_place else Path(str(one['workdir'])).name}"
    for one in (members if isinstance(members, list) else [])
    if isinstance(one, dict) and "workdir" in one
  ]
  return f"{'the mean of ' if len(told) > 1 else ''}{', '.join(told)}"


def describe_second_set(name: str, config: RunConfig, workdir: Path) -> str:
  """Says how many cases of a run's second data set train, for how many of the patches.

  Args:
    name: what the set is called.
    config: the run's.
    workdir: its folder.

  Raises:
    UserError: `folds.json` is damaged.
  """
  listing = read_json_object(workdir / "folds.json", WAY_OUT)
  count = len(listing[ALSO]) if ALSO in listing else "an unknown number of"
  return f"{name}, {count} training cases, {config.data.also_share:.3g} of the patches"


def count_run_parameters(config: RunConfig, workdir: Path) -> list[int]:
  """Returns the number of parameters of each network: of one, of every stage, or of every fold."""
  if folds := list_fold_runs(workdir):
    return [count for one in folds if (one / "config.json").is_file()
            for count in count_run_parameters(load_config(one / "config.json"), one)]  # fmt: skip
  if config.stages.count == 1:
    return [count_parameters(config)]
  stages = (workdir / name / "config.json" for name in (FIRST, INTERIOR, BOUNDARY))
  return [count_parameters(load_config(path)) for path in stages if path.is_file()]


def count_cases(workdir: Path, fold: FoldChoice) -> str:
  """Says how many cases a run has in each part; of all folds, how many in how many.

  Raises:
    UserError: `folds.json` is damaged.
  """
  listing = read_json_object(workdir / "folds.json", WAY_OUT).get("folds", [])
  if fold == "all":
    cases = {case for one in listing for part in PARTS for case in one[part]}
    return f"{len(cases)} in {len(listing)} folds"
  # The list may be missing, as of a run that was converted.
  own = listing[fold] if fold < len(listing) else {}
  return ", ".join(f"{len(cases)} {part}" for part, cases in own.items()) or "unknown"
