"""Whole programs, each from its start to its end: a scan to its mask, and a training."""

import re
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.console import print_line
from benchmarks.peers.contenders import LARGE_PAGES
from benchmarks.peers.inputs import EXPERIMENT, write_run, write_scan, write_training_scans
from benchmarks.peers.turns import MARK_STEP, Failed, Finished, finish, summarise_times

SLICES, SCANS, STEPS = 300, 5, 12
Program = Callable[[], tuple[float, float]]  # does the work; its seconds and its peak in GiB


def compare_scans(folder: Path, repeats: int) -> dict[str, Any]:
  """Segments a scan of 512 x 512 x 300 by our `predict` and by MONAI, file to mask, in turn."""
  scan, run, half = folder / "scan.nii.gz", folder / "run", folder / "run_bfloat16"
  write_scan(scan, SLICES)
  write_run(run, "float32")
  write_run(half, "bfloat16")

  def predict(*flags: str) -> Program:
    mask = folder / "ours" / "mask.nii.gz"
    given = [f"--workdir={run}", f"--input={scan}", f"--output={mask}", *flags]

    def call() -> tuple[float, float]:
      shutil.rmtree(mask.parent, ignore_errors=True)
      accept = "--accept=hounsfield,pose"  # the scan is drawn
      done = finish(["attn_unet_jax.predict", *given, accept], LARGE_PAGES)
      return done.seconds, done.peak_gib

    return call

  def segment_by_monai(more: Mapping[str, str]) -> Program:
    mask = folder / "monai" / "mask.nii.gz"

    def call() -> tuple[float, float]:
      mask.parent.mkdir(exist_ok=True)
      done = finish(["benchmarks.peers.monai_scan", str(scan), str(mask)], more)
      return done.seconds, done.peak_gib

    return call

  programs = {
    "ours": predict("--engine=auto"),
    "ours, JAX": predict("--engine=jax"),
    "ours, bfloat16": predict("--engine=openvino", "--precision=bfloat16"),
    "MONAI, released network, 2 MiB pages": segment_by_monai(LARGE_PAGES),
    "MONAI, released network, as started": segment_by_monai({}),
  }
  return _run_in_turn(programs, repeats)


def compare_trainings(folder: Path, repeats: int) -> dict[str, Any]:
  """Trains on five scans by our `main` and by MONAI's pipeline; seconds of a step, in turn."""
  scans = folder / "scans"
  write_training_scans(scans, SCANS)

  def train() -> tuple[float, float]:
    workdir = folder / "training"
    shutil.rmtree(workdir, ignore_errors=True)
    flags = {
      "data.folder": scans, "data.patch": "(64,64,64)", "data.accept": "hounsfield,pose",
      "train.batch_size": 2, "train.epochs": 2, "train.steps_per_epoch": STEPS,
      "train.validate_every": 2,
    }  # fmt: skip
    given = [f"--config.{key}={value}" for key, value in flags.items()]
    command = ["attn_unet_jax.main", f"--config={EXPERIMENT}", f"--workdir={workdir}", *given]
    done = finish(command, LARGE_PAGES)
    # The first epoch compiles.
    last = read_metrics(workdir / "metrics.csv")[-1]
    return float(last["train_seconds"]) / STEPS, done.peak_gib

  def train_by_monai(more: Mapping[str, str]) -> Program:
    def call() -> tuple[float, float]:
      command = ["benchmarks.peers.monai_training", str(scans), str(STEPS)]
      done = finish(command, more)
      return read_step(done), done.peak_gib

    return call

  programs = {
    "ours": train,
    "MONAI, released network, 2 MiB pages": train_by_monai(LARGE_PAGES),
    "MONAI, released network, as started": train_by_monai({}),
  }
  return _run_in_turn(programs, repeats)


def read_step(done: Finished) -> float:
  """Returns the seconds of a step that a training printed.

  Raises:
    Failed: it printed none.
  """
  found = re.search(rf"^{re.escape(MARK_STEP)}(\S+)$", done.output, re.MULTILINE)
  if not found:
    raise Failed("said no time of a step")
  return float(found[1])


def _run_in_turn(programs: Mapping[str, Program], repeats: int) -> dict[str, Any]:
  seconds: dict[str, list[float]] = {name: [] for name in programs}
  peaks: dict[str, list[float]] = {name: [] for name in programs}
  failed: dict[str, str] = {}
  for number in range(repeats):
    for name, call in programs.items():
      if name in failed:
        continue
      print_line(f"{name}, {number + 1} of {repeats}")
      try:
        taken, peak = call()
      except Failed as error:
        failed[name] = str(error)
        continue
      seconds[name].append(taken)
      peaks[name].append(peak)
  base = next(iter(seconds.values()))
  return {
    name: {"error": failed[name]} if name in failed else _describe(seconds[name], peaks[name], base)
    for name in programs
  }


def _describe(
  seconds: Sequence[float], peaks: Sequence[float], base: Sequence[float]
) -> dict[str, Any]:
  return summarise_times(seconds, base) | {"peak_gib": round(statistics.median(peaks), 2)}
