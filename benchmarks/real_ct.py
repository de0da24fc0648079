r"""How well a network does on real CT: test slabs, a whole scan, paintings, and as a start.

  python -m benchmarks.real_ct --network=builtin:pancreas --data_dir=data --workdir=runs/real_ct \
    --parts=slabs,scan,paintings,finetune --scan=ct_nifti_3mm --paintings=painted_ct/maps

Each part is stored when it is done, beside those of other networks, so that they can be taken one
by one; a fine-tuning that was interrupted goes on, and one that is done is not repeated.

  slabs      the test slabs of folder_ct/native_msd07_slabs, patients never seen, DSC over the slab
  scan       a scan with labels of TotalSegmentator's 104 classes: one DSC for each class
  paintings  the test cases of records of painted_ct, maps never seen
  finetune   on 1, 3 and 5 of the test slabs from the network, and from scratch with as many steps;
             scored on the other test slabs, since the network has seen those of the training
"""

import csv
import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from attn_unet_jax.cases.folds import read_folds
from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation.intervals import mean_interval
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.builtin import PREFIX, find_run
from attn_unet_jax.runs.release import is_release
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object, write_text
from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.result import keep, machine
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

_NETWORK = flags.DEFINE_string("network", "builtin:pancreas", "A run, a release, or builtin:NAME.")
_PARTS = flags.DEFINE_list("parts", list(PARTS), "What is measured.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for scores and runs.", required=True)
_SCAN = flags.DEFINE_string(
  "scan", None, "Folder with ct.nii.gz and labels_104.nii.gz, for the part scan."
)
_PAINTINGS = flags.DEFINE_string(
  "paintings", "painted_ct/maps", "Records whose test cases are painted on maps never seen."
)
_STEPS = flags.DEFINE_integer("finetune_steps", 500, "Steps of each training.", lower_bound=1)
_RATE = flags.DEFINE_float("finetune_rate", 5e-4, "Learning rate of those that start from it.")
_SCRATCH_RATE = flags.DEFINE_float("scratch_rate", 1e-3, "Learning rate of those that do not.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/real_ct.json", "JSON to write.")


def main() -> None:
  """Measures part by part, and stores each."""
  measure = {
    "slabs": score_slabs,
    "scan": score_scan,
    "paintings": score_paintings,
    "finetune": compare_starts,
  }
  asked = _PARTS.value or []
  if unknown := [part for part in asked if part not in measure]:
    raise UserError(f"--parts={unknown[0]}: must be out of {', '.join(PARTS)}")
  find_run(_network())  # a name that does not exist ends here
  for part in asked:
    on = machine()
    _store(part, {"machine": on, **measure[part]()})


def score_slabs() -> dict[str, Any]:
  """Scores the test slabs."""
  network = find_run(_network())
  if not is_release(network) and load_config(network / "config.json").data.dataset == SLABS:
    runs.command("evaluate", f"--workdir={network}")
    return summarise(network / "evaluation")
  labels = _map_labels({"pancreas": ("pancreas", "tumour")})
  return _evaluate("slabs", SLABS, labels, f"--config.data.folds={FOLDS}", "--part=test")


def score_scan() -> dict[str, Any]:
  """Scores the scan, whose labels are values of TotalSegmentator."""
  if not _SCAN.value:
    raise UserError("--scan is missing: a folder with ct.nii.gz and labels_104.nii.gz")
  folder = _workdir() / "scan_data"
  for part, name in (("imagesTr", "ct.nii.gz"), ("labelsTr", "labels_104.nii.gz")):
    link = folder / part / "scan.nii.gz"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path(_SCAN.value, name).resolve())
  names = json.loads((PACKAGED / "totalsegmentator104.json").read_text(encoding="utf-8"))
  write_text(folder / "dataset.json", json.dumps({"labels": {"0": "background", **names}}))
  labels = _map_labels({}, set(names.values()))
  return _evaluate("scan", "", labels, f"--config.data.folder={folder}")


def score_paintings() -> dict[str, Any]:
  """Scores the test cases that were painted."""
  return _evaluate("paintings", _PAINTINGS.value or "", _map_labels({}), "--part=test")


def compare_starts() -> dict[str, Any]:
  """Trains on few slabs that the network has not seen, from it and from scratch."""
  found: dict[str, Any] = {"steps": _STEPS.value}
  for count in FEW:
    folds = _write_folds(count)
    for start in ("network", "scratch"):
      workdir = _workdir() / f"finetune_{_STEPS.value}" / f"{start}_{count}"
      runs.train(EXPERIMENT, workdir, *_list_flags(start, folds))
      found[f"{start}_{count}"] = summarise(workdir / "evaluation")
  return found


def _list_flags(start: str, folds: Path) -> Iterator[str]:
  """Yields the flags of a fine-tuning: those of the network where it must be the same."""
  usual = flatten(runs.asked(f"--config=experiments/{EXPERIMENT}"))
  for key, value in flatten(load_config(find_run(_network()) / "config.json")).items():
    if (key in _SHARED or key.startswith("model.")) and value != usual.get(key):
      yield f"--config.{key}={value}"
  epochs = max(1, (_STEPS.value or 1) // 50)
  yield f"--config.data.dir={_DATA_DIR.value}"
  yield f"--config.data.folds={folds}"
  yield f"--config.train.epochs={epochs}"
  yield f"--config.train.steps_per_epoch={(_STEPS.value or 1) // epochs}"
  yield f"--config.train.validate_every={epochs}"
  if start == "network":
    yield f"--config.init.workdir={_network()}"
  rate = _RATE.value if start == "network" else _SCRATCH_RATE.value
  yield f"--config.optimizer.learning_rate={rate}"


def _write_folds(count: int) -> Path:
  """Writes a fold of the first test slabs for training; the same others are the test for all."""
  fold = read_folds(FOLD_LIST)["folds"][0]
  test = fold["test"]
  parts = {
    "training": test[:count],
    "validation": fold["validation"],
    "test": test[max(FEW) :],
  }
  path = _workdir() / f"folds_{count}.json"
  write_text(path, json.dumps({"name": f"{count} slabs", "folds": [parts]}) + "\n")
  return path


def _map_labels(parts: Mapping[str, Sequence[str]], names: Collection[str] | None = None) -> str:
  """Returns the classes of the network in the labels of a data set, for `data.labels`.

  Args:
    parts: the names of the labels that a class is made of, by class; the set labels no other class.
      Empty: a class is called as its label is.
    names: all labels of the set; None: it has one for each class.
  """
  found = []
  for name in class_names(load_config(find_run(_network()) / "config.json").data.labels):
    labels: Sequence[str] = parts.get(name) or _UNIONS.get(name) or (name,)
    is_there = name in parts if parts else names is None or all(one in names for one in labels)
    found.append(f"{name}={'+'.join(labels) if is_there else 'none'}")
  return ",".join(found)


def _evaluate(part: str, dataset: str, labels: str, *more: str) -> dict[str, Any]:
  """Scores the network on a data set that is not its own."""
  output = _workdir() / part / _title().replace(":", "_")
  places = [f"--config.data.dataset={dataset}", f"--config.data.dir={_DATA_DIR.value}"]
  runs.command(
    "evaluate",
    f"--workdir={_network()}",
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


def _store(part: str, found: dict[str, Any]) -> None:
  """Writes a part beside what the file has of other parts and networks."""
  path = Path(_OUTPUT.value or "")
  stored = read_json_object(path, "remove it to measure again")
  stored.setdefault(_title(), {})[part] = found
  keep(stored, str(path))


def _network() -> str:
  return _NETWORK.value or ""


def _title() -> str:
  """What the network is called in the file: its folder's place concerns nobody else."""
  text = _network()
  return text if text.startswith(PREFIX) else Path(text).resolve().name


def _workdir() -> Path:
  return Path(_WORKDIR.value or "")


if __name__ == "__main__":
  run_command(main)
