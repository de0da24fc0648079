import os
import subprocess
import sys

import pytest

from attn_unet_jax.runtime.errors import UserError
from tests.conftest import ROOT
from tfds_pancreas.build_lock import hold_build_lock

HOLD = """
import sys
from pathlib import Path
from tfds_pancreas.build_lock import hold_build_lock
with hold_build_lock(Path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def lock_holder(tmp_path):
  """Starts another process that builds into tmp_path/1.0.0."""
  command = [sys.executable, "-c", HOLD, str(tmp_path / "1.0.0")]
  with subprocess.Popen(
    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()


def test_a_second_build_is_refused_and_destroys_nothing(tmp_path, lock_holder):
  (tmp_path / "incomplete.ABC_1.0.0").mkdir()
  running = pytest.raises(UserError, match="another build of this data set is running")
  with running, hold_build_lock(tmp_path / "1.0.0"):
    pass
  assert (tmp_path / "incomplete.ABC_1.0.0").is_dir()
  with hold_build_lock(tmp_path / "2.0.0"):  # another version is another matter
    pass


def test_the_lock_of_a_killed_build_is_free_and_what_it_left_goes(tmp_path, lock_holder):
  for name in ("incomplete.ABC_1.0.0/parts", "incomplete.DEF_2.0.0", "0.9.0"):
    (tmp_path / name).mkdir(parents=True)
  lock_holder.kill()
  lock_holder.wait()
  with hold_build_lock(tmp_path / "1.0.0"):
    assert not (tmp_path / "incomplete.ABC_1.0.0").exists()
  assert sorted(os.listdir(tmp_path)) == ["0.9.0", "incomplete.DEF_2.0.0"]


def test_a_build_that_fails_frees_the_lock(tmp_path):
  with pytest.raises(ZeroDivisionError), hold_build_lock(tmp_path / "a" / "1.0.0"):
    _ = 1 // 0
  with hold_build_lock(tmp_path / "a" / "1.0.0"):
    pass
  assert os.listdir(tmp_path / "a") == []
