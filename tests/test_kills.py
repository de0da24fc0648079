"""A run that is killed at random moments ends with the same bits as one that never was."""

import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from attn_unet_jax.inference.trained import open_run
from tests.conftest import ROOT, flags_of, small_config

KILLS = 6


def _start(data_dir, workdir):
  config = small_config()
  config.data.dir = str(data_dir)
  config.train.epochs = 40
  config.train.validate_every = 20
  config.augment.flip = (0.5, 0.5, 0.5)
  command = [sys.executable, "-m", "attn_unet_jax.main", "--config=tests/small.py"]
  return subprocess.Popen(
    [*command, f"--workdir={workdir}", *flags_of(config)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _steps(workdir):
  folder = workdir / "checkpoints"
  return {p.name for p in folder.iterdir() if p.name.isdigit()} if folder.is_dir() else set()


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again(phantoms, tmp_path):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  output, _ = _start(phantoms, whole).communicate(timeout=600)
  assert open_run(whole).step == 120, output
  moments, seen = random.Random(0), []
  for _ in range(KILLS):
    process, before = _start(phantoms, killed), _steps(killed)
    while _steps(killed) == before and process.poll() is None:
      time.sleep(0.01)
    time.sleep(moments.uniform(0, 0.7))  # into steps, or into the next save
    process.kill()
    process.communicate()
    assert process.returncode == -9
    seen.append(max(map(int, _steps(killed))))
  assert seen == sorted(seen)
  assert 0 < seen[0] < seen[-1] < 120  # each start went on from where the last was killed
  output, _ = _start(phantoms, killed).communicate(timeout=600)
  assert "going on with" in output
  a, b = (open_run(workdir).system.variables for workdir in (whole, killed))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)
  tables = [(workdir / "evaluation" / "cases.csv").read_text() for workdir in (whole, killed)]
  assert tables[0] == tables[1]
