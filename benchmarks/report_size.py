"""What the page of a large run takes: CPU seconds and peak memory of one process, and its size.

  python -m benchmarks.report_size --output=benchmarks/results/report_size.json

Makes the folder of a run of 80 test cases of 512 x 512 x 240 voxels (0.8 x 0.8 x 1 mm, `.nii.gz`):
noisy scans with an ellipsoid as truth and another as prediction, scores of every metric, 1000
epochs of losses, gates with means. No network computes: `report` works from stored masks and
scores. A few scans are drawn and stand under all names by hard links, since the page reads each
case by itself. Drawing them is not counted. The time is the processor's, which other work on the
machine changes little.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.evaluation.gate_places import write_gate_means
from attn_unet_jax.evaluation.scoring import write_scores
from attn_unet_jax.runs.attention_csv import GateLog
from attn_unet_jax.runs.metrics_csv import COLUMNS
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.places import PLACES
from attn_unet_jax.volumes.volume import Volume
from benchmarks.result import keep, machine

SHAPE, SPACING_MM, CASES, EPOCHS = (512, 512, 240), (0.8, 0.8, 1.0), 80, 1000
_DRAWN = 3  # different scans
_GATES = [f"level{level}/{gate}" for level in (2, 3, 4) for gate in (0, 1)]
_METRICS = (
  *("dsc", "iou", "precision", "recall", "specificity", "nsd_1mm", "nsd_2mm", "nsd_3mm"),
  *("assd_mm", "hd_mm", "hd95_mm", "ece", "volume_error_abs_ml"),
)
_AIR, _TISSUE, _ORGAN = -1000, 30, 90  # HU


def draw_case(shape: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws a scan (int16 HU), its truth and a prediction: ellipsoids in a trunk, with noise."""
  random = np.random.default_rng(seed)
  at = np.ogrid[tuple(slice(-1, 1, complex(n)) for n in shape)]
  trunk = (at[0] / 0.9) ** 2 + (at[1] / 0.65) ** 2 < 1
  image = np.where(np.broadcast_to(trunk, shape), np.int16(_TISSUE), np.int16(_AIR))
  masks = []
  for shift in (0.0, 0.03 * (seed + 1)):
    organ = ((at[0] - shift) / 0.25) ** 2 + (at[1] / 0.12) ** 2 + (at[2] / 0.2) ** 2 < 1
    masks.append(organ.astype(np.uint8))
  image[masks[0] == 1] = _ORGAN
  for index in range(shape[2]):  # a slice at a time: noise in float64 would fill the memory
    image[..., index] += random.normal(0, 12, shape[:2]).astype(np.int16)
  return image, masks[0], masks[1]


def make_run(folder: Path, shape: Sequence[int], cases: int, epochs: int) -> Path:
  """Makes the folder of a run, and its data beside it; returns the run."""
  names, workdir, data = [f"case_{n:03d}" for n in range(cases)], folder / "run", folder / "data"
  affine = np.diag([*SPACING_MM, 1.0])
  for number, name in enumerate(names):
    paths = (
      data / "imagesTr" / f"{name}.nii.gz",
      data / "labelsTr" / f"{name}.nii.gz",
      workdir / "predictions" / f"{name}.nii.gz",
    )
    if number < _DRAWN:
      for path, array in zip(paths, draw_case(shape, number), strict=True):
        write_nifti(path, Volume(array, affine))
    else:
      for path in paths:
        os.link(path.with_name(f"{names[number % _DRAWN]}.nii.gz"), path)
  config = replace_keys(RunConfig(), {"data.dataset": "", "data.folder": str(data)})
  (workdir / "config.json").write_text(to_json(config))
  fold = {"training": names[:1], "validation": names[:1], "test": names}
  (workdir / "folds.json").write_text(json.dumps({"name": "made", "folds": [fold]}))
  (workdir / "run.json").write_text(json.dumps({"exit": "done", "total_wall_seconds": 1.0}))
  _write_figures(workdir, names, epochs)
  return workdir


def _write_figures(workdir: Path, names: Sequence[str], epochs: int) -> None:
  random = np.random.default_rng(0)
  volumes = {"volume_ml": 80.0, "reference_volume_ml": 80.0}
  scores = {
    name: {"pancreas": dict(zip(_METRICS, random.random(len(_METRICS)), strict=True)) | volumes}
    for name in names
  }
  write_scores(scores, workdir / "evaluation", {"part": "test"})
  means = {gate: dict.fromkeys(PLACES, 0.5) for gate in _GATES}
  write_gate_means(workdir / "evaluation" / "attention.csv", dict.fromkeys(names, means))
  with (workdir / "metrics.csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([n, *(f"{1 / n:.6g}" for _ in COLUMNS[1:])] for n in range(1, epochs + 1))
  GateLog(workdir, 0).write_epoch(epochs, means)


def measure(workdir: Path) -> dict[str, Any]:
  """Runs `report` in a process of its own; returns what it took."""
  command = [sys.executable, "-m", "attn_unet_jax.report", f"--workdir={workdir}"]
  with subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}) as child:
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
  if child.returncode:
    raise SystemExit(f"report ended with status {child.returncode}")
  return {
    "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    "peak_memory_gb": round(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9, 2),
    "page_mb": round((workdir / "report.html").stat().st_size / 1e6, 2),
  }


def main() -> None:
  """Makes the run in a temporary folder, and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", type=int, default=CASES, help="number of test cases")
  parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels of a scan")
  parser.add_argument("--output", help="JSON file for the figures")
  arguments = parser.parse_args()
  on = machine()
  with tempfile.TemporaryDirectory() as folder:
    workdir = make_run(Path(folder), arguments.shape, arguments.cases, EPOCHS)
    found = measure(workdir)
  about = {"cases": arguments.cases, "voxels": [*arguments.shape], "epochs": EPOCHS}
  keep({"machine": on, **about, **found}, arguments.output)


if __name__ == "__main__":
  main()
