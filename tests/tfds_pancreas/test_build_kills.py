"""Builds in processes of their own that are stopped in the middle: real files, real signals."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from attn_unet_jax.runtime.errors import UserError
from tests.conftest import ROOT
from tests.fake_pancreas_ct import FakeCase, write_case
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.records import find_built_version, open_records

NATIVE = "pancreas_ct/native"
CASES = [FakeCase(number) for number in (1, 2, 3, 4)]


# Python runs a module of this name at its start, in the workers too. One slice is never opened.
HALTING = """
import io, os, time

open_file = io.open


def open_or_halt(file, *arguments, **keywords):
  while str(file) == os.environ["HALTED_AT"]:
    time.sleep(0.01)
  return open_file(file, *arguments, **keywords)


io.open = open_or_halt
"""


def start_build(files, data, workers=2, env=None):
  flags = [f"--dataset={NATIVE}", f"--manual_dir={files}", f"--data_dir={data}"]
  return subprocess.Popen(
    [sys.executable, "-m", "tfds_pancreas.build", *flags, f"--workers={workers}"],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    env={**os.environ, **(env or {})},
  )


def wait_for(condition, process):
  deadline = time.monotonic() + 120
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.02)


@pytest.fixture
def halted_build(tmp_path):
  """Starts a build that stands still at a slice of its last case.

  Yields the process, its workers, the folder of files and that of data.
  """
  files, data, site = tmp_path / "files", tmp_path / "data", tmp_path / "site"
  written = [write_case(files, case, "nbia") for case in CASES]
  site.mkdir()
  (site / "sitecustomize.py").write_text(HALTING)
  env = {"PYTHONPATH": str(site), "HALTED_AT": str(written[-1][2])}
  process = start_build(files, data, env=env)
  parts = data / NATIVE
  wait_for(lambda: len(list(parts.glob("incomplete.*/parts/*.json"))) == 3, process)
  workers = psutil.Process(process.pid).children(recursive=True)
  assert len(workers) >= 2
  yield process, workers, files, data
  process.kill()
  process.communicate()


def test_killed_in_the_middle_it_is_no_data_set_and_the_next_build_is_clean(halted_build):
  process, workers, files, data = halted_build
  with pytest.raises(UserError, match="another build of this data set is running"):
    build_dataset(NATIVE, data, manual_dir=files)
  process.kill()
  process.wait()
  _, alive = psutil.wait_procs(workers, timeout=60)
  assert alive == []
  left_over = list((data / NATIVE).glob("incomplete.*"))
  assert len(left_over) == 1
  with pytest.raises(UserError, match="has not been built there"):
    open_records(NATIVE, data)
  build_dataset(NATIVE, data, manual_dir=files)
  assert open_records(NATIVE, data).splits["train"].case_ids == [case.id for case in CASES]
  assert [path.name for path in (data / NATIVE).iterdir()] == ["1.0.0"]


@pytest.mark.slow
def test_sigterm_ends_it_with_143_and_one_line(halted_build):
  process, workers, _, data = halted_build
  os.killpg(process.pid, signal.SIGTERM)  # to the workers as well, as batch systems do
  out, err = process.communicate(timeout=60)
  assert process.returncode == 143
  assert out.splitlines()[-1] == f"{NATIVE}: stopped, nothing is built; run the command again"
  assert err == ""
  _, alive = psutil.wait_procs(workers, timeout=60)
  assert alive == []
  assert list((data / NATIVE).iterdir()) == []


@pytest.mark.slow
def test_killed_at_random_moments_it_never_leaves_a_half_data_set(tmp_path):
  files, data = tmp_path / "files", tmp_path / "data"
  for case in CASES:
    write_case(files, case, "nbia")
  moments, outcomes = random.Random(0), set()
  for _ in range(12):
    process = start_build(files, data)
    wait_for(lambda: list((data / NATIVE).glob("incomplete.*/*")), process)
    time.sleep(moments.uniform(0, 0.6))
    process.kill()
    process.communicate()
    there = find_built_version(NATIVE, data) is not None
    outcomes.add(there)
    if there:
      assert open_records(NATIVE, data).splits["train"].case_ids == [case.id for case in CASES]
      assert list((data / NATIVE / "1.0.0").glob("parts")) == []
      shutil.rmtree(data / NATIVE / "1.0.0")
  assert False in outcomes
  build_dataset(NATIVE, data, manual_dir=files)
  assert [path.name for path in (data / NATIVE).iterdir()] == ["1.0.0"]
