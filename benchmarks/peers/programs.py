"""Whole programs, each from its start to its end: a scan to its mask, and a training."""

import re
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.models.ops.onednn_conv import has_onednn
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.console import print_line
from benchmarks.peers.contenders import LARGE_PAGES
from benchmarks.peers.inputs import EXPERIMENT, write_run, write_scan, write_training_scans
from benchmarks.peers.turns import (
  MARK_STEP,
  FinishedProcess,
  ProcessFailedError,
  run_process,
  summarise_times,
)

SLICES, SCANS, STEPS = 300, 5, 12
Program = Callable[[], tuple[float, float]]  # does the work; its seconds and its peak in GiB


def compare_scans(folder: Path, repeats: int) -> dict[str, Any]:
  """Segments a scan of 512 x 512 x 300 by our `predict` and by MONAI, file to mask, in turn."""
  scan, mask = folder / "scan.nii.gz", folder / "masks" / "mask.nii.gz"
  write_scan(scan, SLICES)
  ours = ["attn_unet_jax.predict", f"--input={scan}", f"--output={mask}"]
  ours += ["--again", "--accept=hounsfield,pose"]  # the scan is drawn
  run, within_body = [*ours, f"--workdir={folder / 'run'}"], [*ours, f"--workdir={folder / 'body'}"]
  write_run(folder / "run")
  write_run(folder / "body", "plan")
  monai = ["benchmarks.peers.monai_scan", str(scan), str(folder / "monai" / "mask.nii.gz")]
  bfloat16 = ["--engine=openvino", "--precision=bfloat16"]
  return _run_in_turn(
    {
      "ours": _make_program([*run, "--engine=auto"], LARGE_PAGES),
      "ours, JAX": _make_program([*run, "--engine=jax"], LARGE_PAGES),
      "ours, bfloat16": _make_program([*run, *bfloat16], LARGE_PAGES),
      "ours, windows within the body": _make_program([*within_body, "--engine=auto"], LARGE_PAGES),
      "ours, windows within the body, bfloat16": _make_program(
        [*within_body, *bfloat16], LARGE_PAGES
      ),
      "MONAI, released network, 2 MiB pages": _make_program(monai, LARGE_PAGES),
      "MONAI, released network, as started": _make_program(monai, {}),
    },
    repeats,
  )


def compare_trainings(folder: Path, repeats: int) -> dict[str, Any]:
  """Trains on five scans by our `main` and by MONAI's pipeline; seconds of a step, in turn."""
  scans, workdir = folder / "scans", folder / "training"
  write_training_scans(scans, SCANS)
  flags = {
    "data.folder": scans, "data.patch": "(64,64,64)", "data.accept": "hounsfield,pose",
    "train.batch_size": 2, "train.epochs": 2, "train.steps_per_epoch": STEPS,
    "train.validate_every": 2,
  }  # fmt: skip
  given = [f"--config.{key}={value}" for key, value in flags.items()]
  ours = ["attn_unet_jax.main", f"--config={EXPERIMENT}", f"--workdir={workdir}", *given]
  monai = ["benchmarks.peers.monai_training", str(scans), str(STEPS)]

  def read_last_epoch(_: FinishedProcess) -> float:
    """Returns the seconds of a step of the second epoch; the first one compiles."""
    seconds = float(read_metrics(workdir / "metrics.csv")[-1]["train_seconds"]) / STEPS
    shutil.rmtree(workdir)  # it would go on with what is done
    return seconds

  onednn = [*ours, "--config.model.conv=onednn"]
  by_onednn = {
    "ours, oneDNN": _make_program(onednn, LARGE_PAGES, read_last_epoch),
    "ours, oneDNN, bfloat16": _make_program(
      [*onednn, "--config.model.dtype=bfloat16"], LARGE_PAGES, read_last_epoch
    ),
  }
  return _run_in_turn(
    {
      "ours": _make_program(ours, LARGE_PAGES, read_last_epoch),
      **(by_onednn if has_onednn() else {}),
      "MONAI, released network, 2 MiB pages": _make_program(monai, LARGE_PAGES, read_step),
      "MONAI, released network, as started": _make_program(monai, {}, read_step),
    },
    repeats,
  )


def _make_program(
  command: Sequence[str],
  environment: Mapping[str, str],
  read_seconds: Callable[[FinishedProcess], float] = lambda done: done.seconds,
) -> Program:
  """Makes what runs a module to its end, and says its seconds and its peak of memory."""

  def run() -> tuple[float, float]:
    done = run_process(command, environment)
    return read_seconds(done), done.peak_gib

  return run


def read_step(done: FinishedProcess) -> float:
  """Returns the seconds of a step that a training printed.

  Raises:
    ProcessFailedError: it printed none.
  """
  found = re.search(rf"^{re.escape(MARK_STEP)}(\S+)$", done.output, re.MULTILINE)
  if not found:
    raise ProcessFailedError("said no time of a step")
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
      except ProcessFailedError as error:
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
