"""Damaged files through the commands, in bounded time and memory: each is named or answered."""

import csv
import gzip
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from tests.conftest import ROOT
from tests.damaged_files import damage_bytes
from tfds_pancreas.records import open_records

PAIRS = 144
MEMORY_KIB = 12 << 20  # of addresses: XLA reserves more of them than it fills
_HEADER_BYTES = 352

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def case(phantoms):
  records = RecordDataset(open_records("phantom_ct/tiny", phantoms))
  return records.load(records.ids[0])


def run_limited(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
  """Runs a command whose memory and time are limited."""
  command = [sys.executable, "-m", module, *arguments]
  return subprocess.run(
    # By the shell: Python would fork for it, which JAX warns of.
    ["sh", "-c", f'ulimit -v {MEMORY_KIB}; exec "$@"', "sh", *command],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=900,
  )


def write_damaged(folder, volume, count: int, rng: np.random.Generator) -> set[str]:
  """Writes many damaged copies of a volume; returns their names."""
  folder.mkdir(parents=True)
  whole = folder.parent / "whole.nii"
  write_nifti(whole, volume)
  content, names = whole.read_bytes(), set()
  for index in range(count):
    names.add(f"case{index:03}")
    path = folder / f"case{index:03}.nii.gz"
    path.write_bytes(gzip.compress(damage_bytes(content, rng, _HEADER_BYTES), 1, mtime=0))
  return names


@pytest.mark.parametrize("count", [12, pytest.param(60, marks=pytest.mark.soak)])
def test_predict_answers_or_names_each_scan(case, tmp_path, count):
  names = write_damaged(tmp_path / "scans", case.image, count, np.random.default_rng(0))
  with tarfile.open(ROOT / "tests" / "workflows" / "run_of_0_1_0.tar.xz") as archive:
    archive.extractall(tmp_path, filter="data")
  flags = (f"--input={tmp_path}/scans", f"--output={tmp_path}/masks")
  done = run_limited("attn_unet_jax.predict", f"--workdir={tmp_path}/run", *flags)
  assert "Traceback" not in done.stdout + done.stderr
  assert done.returncode == 2
  with (tmp_path / "masks" / "volumes.csv").open() as file:
    rows = {row["name"].removesuffix(".nii.gz"): row for row in csv.DictReader(file)}
  masks = {path.name.removesuffix(".nii.gz"): path for path in tmp_path.glob("masks/*.nii.gz")}
  refused = {name for name, row in rows.items() if row["error"]}
  assert refused | set(masks) == names
  assert not refused & set(masks)
  assert count / 6 < len(refused) < count * 5 / 6
  for path in masks.values():
    read_label(path)


def test_check_names_each_file(case, tmp_path):
  rng = np.random.default_rng(1)
  names = write_damaged(tmp_path / "data" / "imagesTr", case.image, PAIRS, rng)
  assert names == write_damaged(tmp_path / "data" / "labelsTr", case.label, PAIRS, rng)
  flags = (f"--input={tmp_path}/data", "--config.data.labels=liver=1,background=*")
  done = run_limited("attn_unet_jax.check", *flags, f"--output={tmp_path}/checked")
  said = done.stdout + done.stderr
  assert "Traceback" not in said
  assert done.returncode == 2
  assert said.replace("\n", "").isprintable()
  cases = json.loads((tmp_path / "checked" / "check.json").read_text())["cases"]
  assert {one["id"] for one in cases} == names
  errors = {one["id"] for one in cases if any(f["severity"] == "error" for f in one["findings"])}
  assert PAIRS / 3 < len(errors) < PAIRS
