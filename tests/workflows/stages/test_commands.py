"""All stages through the commands, with networks that are really trained, if only for a moment."""

import csv
import json
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from tests.configs import SMALLEST, small_config
from tests.conftest import ROOT, flags_of, run_command, stop_when
from tfds_pancreas.records import open_records

pytestmark = pytest.mark.slow
MAIN = "attn_unet_jax.main"


def _flags(data_dir, workdir):
  keys = {
    **SMALLEST,
    "data.dir": str(data_dir),
    "data.labels": "liver",
    "data.patch": (32, 32, 16),
    "stages.patch": (16, 16, 16),
    "data.source": "streaming",  # its step is compiled once for all folds of a stage
    "stages.count": 2,
    "stages.superpixel_mm": 20.0,
    "stages.box_margin_mm": 20.0,
    "train.epochs": 1,
    "train.steps_per_epoch": 40,
  }
  config = small_config(**keys)
  return ["--config=tests/small.py", f"--workdir={workdir}", *flags_of(config)]


@pytest.fixture(scope="module")
def whole(phantoms, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  done = run_command(MAIN, *_flags(phantoms, workdir), timeout=900)
  assert done.returncode == 0, done.stderr
  return workdir


def _rows(workdir, part=""):
  return list(
    csv.DictReader((workdir / "evaluation" / part / "cases.csv").read_text().splitlines())
  )


def _masks(workdir):
  return (workdir / "predictions").glob("*.nii.gz")


def test_one_command_does_all_stages(whole):
  for chain in (whole, whole / "inner0", whole / "inner1"):
    for stage in ("stage1", "stage2_interior", "stage2_boundary"):
      assert json.loads((chain / stage / "run.json").read_text())["exit"] == "done"
      assert (chain / stage / "metrics.csv").is_file()
  rows = _rows(whole)
  assert len(rows) == 2
  predicted = {path.name.removesuffix(".nii.gz"): read_label(path) for path in _masks(whole)}
  assert sorted(predicted) == sorted(row["case"] for row in rows)
  for row in rows:  # what is painted is the liver four times as often as by chance
    mask = predicted[row["case"]]
    scan_ml = mask.array.size * mask.voxel_volume_ml
    assert float(row["precision"]) > 4 * float(row["reference_volume_ml"]) / scan_ml
  assert all(0.5 < float(row["box_recall"]) <= 1 for row in rows)
  assert all(0 < float(row["box_volume_reduction"]) < 1 for row in rows)


def test_predict_and_evaluate_run_the_whole_pipeline(whole, phantoms, tmp_path):
  cases = RecordDataset(open_records("phantom_ct/tiny", phantoms))
  case_id = cases.parts["test"][0]
  write_nifti(tmp_path / "scan.nii.gz", cases.load(case_id).image)
  flags = (f"--input={tmp_path}/scan.nii.gz", f"--output={tmp_path}/mask.nii.gz")
  done = run_command("attn_unet_jax.predict", f"--workdir={whole}", *flags)
  assert done.returncode == 0, done.stderr
  mask, own = (
    nib.load(path).get_fdata()
    for path in (tmp_path / "mask.nii.gz", whole / "predictions" / f"{case_id}.nii.gz")
  )
  np.testing.assert_array_equal(mask, own)
  done = run_command("attn_unet_jax.evaluate", f"--workdir={whole}", "--part=validation")
  assert done.returncode == 0, done.stderr
  assert len(_rows(whole, "validation")) == 2
  done = run_command("attn_unet_jax.evaluate", f"--workdir={whole}/stage1")
  assert done.returncode == 0, done.stderr
  assert len(_rows(whole / "stage1")) == 2


@pytest.mark.soak
def test_stopped_between_stages_and_within_one_it_ends_the_same(whole, phantoms, tmp_path):
  workdir = tmp_path / "run"
  flags = _flags(phantoms, workdir)
  for file in ("inner0/boxes.json", "inner1/stage2_interior/config.json"):
    process = subprocess.Popen(
      [sys.executable, "-m", MAIN, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    stop_when(process, workdir / file, signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 143, output
  done = run_command(MAIN, *flags, timeout=900)
  assert done.returncode == 0, done.stderr
  for name in ("body.json", "boxes.json", "forest.npz", "evaluation/cases.csv"):
    assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name
