"""The parts of the benchmark on real CT; see `benchmarks.real_ct`."""

import csv
import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.cases.folds import read_folds
from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation.intervals import mean_interval
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.builtin import PREFIX, find_run
from attn_unet_jax.runs.release import is_release
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object, write_text
from benchmarks import runs
from benchmarks.result import keep
from tfds_pancreas.painted_ct.organ_names import PACKAGED

SLABS, FOLDS = "folder_ct/native_msd07_slabs", "msd07_slabs"
FOLD_LIST = Path("attn_unet_jax/cases/fold_lists") / f"{FOLDS}.json"
EXPERIMENT = "pancreas.py:slabs"  # the recipe of the fine-tunings
PARTS = ("slabs", "scan", "paintings", "finetune")
FEW = (1, 3, 5)
# Of the network's config: what a network must have in common with one that starts from it.
_SHARED = ("data.spacing_mm", "data.blur_mm", "data.patch", "data.normalisation", "data.window_hu")
# Classes of ours that are several of a data set's.
_UNIONS = {"kidney": ("kidney_left", "kidney_right")}


@dataclass(frozen=True)
class Setup:
  """What is measured, and where; see the flags of `benchmarks.real_ct`.

  Attributes:
    network: a run, a release, or builtin:NAME.
    data_dir: where the records are.
    workdir: the folder for scores and runs.
    output: the JSON to write.
    scan: folder with ct.nii.gz and labels_104.nii.gz; '': none.
    paintings: records whose test cases are painted on maps never seen.
    steps: of each fine-tuning.
    rate: the learning rate of those that start from the network.
    scratch_rate: of those that do not.
  """

  network: str
  data_dir: str
  workdir: Path
  output: Path
  scan: str = ""
  paintings: str = "painted_ct/maps"
  steps: int = 500
  rate: float = 5e-4
  scratch_rate: float = 1e-3

  @property
  def title(self) -> str:
    """What the network is called in the file: its folder's place concerns nobody else."""
    text = self.network
    return text if text.startswith(PREFIX) else Path(text).resolve().name


def score_slabs(setup: Setup) -> dict[str, Any]:
  """Scores the test slabs."""
  network = find_run(setup.network)
  if not is_release(network) and load_config(network / "config.json").data.dataset == SLABS:
    runs.command("evaluate", f"--workdir={network}")
    return summarise(network / "evaluation")
  labels = map_labels(setup, {"pancreas": ("pancreas", "tumour")})
  return _evaluate(setup, "slabs", SLABS, labels, f"--config.data.folds={FOLDS}", "--part=test")


def score_scan(setup: Setup) -> dict[str, Any]:
  """Scores the scan, whose labels are values of TotalSegmentator."""
  if not setup.scan:
    raise UserError("--scan is missing: a folder with ct.nii.gz and labels_104.nii.gz")
  folder = setup.workdir / "scan_data"
  for part, name in (("imagesTr", "ct.nii.gz"), ("labelsTr", "labels_104.nii.gz")):
    link = folder / part / "scan.nii.gz"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path(setup.scan, name).resolve())
  names = json.loads((PACKAGED / "totalsegmentator104.json").read_text(encoding="utf-8"))
  write_text(folder / "dataset.json", json.dumps({"labels": {"0": "background", **names}}))
  labels = map_labels(setup, {}, set(names.values()))
  return _evaluate(setup, "scan", "", labels, f"--config.data.folder={folder}")


def score_paintings(setup: Setup) -> dict[str, Any]:
  """Scores the test cases that were painted."""
  return _evaluate(setup, "paintings", setup.paintings, map_labels(setup, {}), "--part=test")


def compare_starts(setup: Setup) -> dict[str, Any]:
  """Trains on few slabs that the network has not seen, from it and from scratch."""
  found: dict[str, Any] = {"steps": setup.steps}
  for count in FEW:
    folds = write_folds(setup, count)
    for start in ("network", "scratch"):
      workdir = setup.workdir / f"finetune_{setup.steps}" / f"{start}_{count}"
      runs.train(EXPERIMENT, workdir, *_list_flags(setup, start, folds))
      found[f"{start}_{count}"] = summarise(workdir / "evaluation")
  return found


def _list_flags(setup: Setup, start: str, folds: Path) -> Iterator[str]:
  """Yields the flags of a fine-tuning: those of the network where it must be the same."""
  usual = flatten(runs.build_asked_config(f"--config=experiments/{EXPERIMENT}"))
  for key, value in flatten(load_config(find_run(setup.network) / "config.json")).items():
    if (key in _SHARED or key.startswith("model.")) and value != usual.get(key):
      yield f"--config.{key}={value}"
  epochs = max(1, setup.steps // 50)
  yield f"--config.data.dir={setup.data_dir}"
  yield f"--config.data.folds={folds}"
  yield f"--config.train.epochs={epochs}"
  yield f"--config.train.steps_per_epoch={setup.steps // epochs}"
  yield f"--config.train.validate_every={epochs}"
  if start == "network":
    yield f"--config.init.workdir={setup.network}"
  rate = setup.rate if start == "network" else setup.scratch_rate
  yield f"--config.optimizer.learning_rate={rate}"


def write_folds(setup: Setup, count: int) -> Path:
  """Writes a fold of the first test slabs for training; the same others are the test for all."""
  fold = read_folds(FOLD_LIST)["folds"][0]
  test = fold["test"]
  parts = {
    "training": test[:count],
    "validation": fold["validation"],
    "test": test[max(FEW) :],
  }
  path = setup.workdir / f"folds_{count}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  write_text(path, json.dumps({"name": f"{count} slabs", "folds": [parts]}) + "\n")
  return path


def map_labels(
  setup: Setup, parts: Mapping[str, Sequence[str]], names: Collection[str] | None = None
) -> str:
  """Returns the classes of the network in the labels of a data set, for `data.labels`.

  Args:
    setup: of which the network matters.
    parts: the names of the labels that a class is made of, by class; the set labels no other class.
      Empty: a class is called as its label is.
    names: all labels of the set; None: it has one for each class.
  """
  found = []
  for name in class_names(load_config(find_run(setup.network) / "config.json").data.labels):
    labels: Sequence[str] = parts.get(name) or _UNIONS.get(name) or (name,)
    is_there = name in parts if parts else names is None or all(one in names for one in labels)
    found.append(f"{name}={'+'.join(labels) if is_there else 'none'}")
  return ",".join(found)


def _evaluate(setup: Setup, part: str, dataset: str, labels: str, *more: str) -> dict[str, Any]:
  """Scores the network on a data set that is not its own."""
  output = setup.workdir / part / setup.title.replace(":", "_")
  places = [f"--config.data.dataset={dataset}", f"--config.data.dir={setup.data_dir}"]
  runs.command(
    "evaluate",
    f"--workdir={setup.network}",
    f"--output={output}",
    f"--config.data.labels={labels}",
    *(places if dataset else ()),
    *more,
  )
  (table,) = (output / "evaluation").rglob("cases.csv")
  return summarise(table.parent)


def summarise(folder: Path) -> dict[str, Any]:
  """Reads the DSC of each class in a folder of scores, by case and on average."""
  summary = read_json_object(folder / "summary.json", "evaluate again")
  with (folder / "cases.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  classes: dict[str, dict[str, float]] = {}
  for row in rows:
    if np.isfinite(float(row["dsc"])):
      classes.setdefault(row["class"], {})[row["case"]] = round(float(row["dsc"]), 4)
  return {
    "checkpoint_step": summary.get("checkpoint_step"),
    "seen_in_training": summary.get("seen_in_training"),
    "classes": {name: describe_scores(dsc) for name, dsc in classes.items()},
  }


def describe_scores(dsc: Mapping[str, float]) -> dict[str, Any]:
  """Returns mean with its 95 % bootstrap interval over patients, median, extremes and all cases."""
  values = np.array(list(dsc.values()))
  low, high = mean_interval(values)
  ends = {"ci95_low": low, "ci95_high": high} if len(values) > 1 else {}
  ranked = sorted(dsc, key=lambda case: (dsc[case], case))
  return {
    "cases": len(values),
    "mean": float(values.mean()),
    **ends,
    "median": statistics.median(values.tolist()),
    "worst": ranked[0],
    "middle": ranked[(len(ranked) - 1) // 2],
    "best": ranked[-1],
    "dsc": dict(dsc),
  }


def store_part(setup: Setup, part: str, found: dict[str, Any]) -> None:
  """Writes a part beside what the file has of other parts and networks."""
  path = setup.output
  stored = read_json_object(path, "remove it to measure again")
  stored.setdefault(setup.title, {})[part] = found
  keep(stored, str(path))
