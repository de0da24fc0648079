import os
import subprocess
import sys

import pytest

from attn_unet_jax.runtime import file_lock
from attn_unet_jax.runtime.file_lock import LockHeldError, acquire_file_lock
from tests.conftest import ROOT

HOLD = """
import sys
from pathlib import Path
from attn_unet_jax.runtime.file_lock import acquire_file_lock
acquire_file_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_its_holders_until_that_ends(tmp_path):
  command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
  pipe = subprocess.PIPE
  with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as holder:
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockHeldError, match=rf"^process {holder.pid} on "):
      acquire_file_lock(tmp_path / ".lock")
    holder.kill()
  os.close(acquire_file_lock(tmp_path / ".lock"))


def test_closing_the_file_frees_it(tmp_path):
  lock = acquire_file_lock(tmp_path / ".lock")
  with pytest.raises(LockHeldError):
    acquire_file_lock(tmp_path / ".lock")
  os.close(lock)
  os.close(acquire_file_lock(tmp_path / ".lock"))


def test_a_file_that_its_holder_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
  """The first try locks a file that is gone by then; the second makes a new one."""
  path = tmp_path / ".lock"
  removed = []

  def lock_and_lose(descriptor):
    if not removed:
      removed.append(os.fstat(descriptor).st_ino)
      path.unlink()

  monkeypatch.setattr(file_lock, "_lock_now", lock_and_lose)
  lock = acquire_file_lock(path)
  assert os.path.samestat(os.fstat(lock), path.stat())
  os.close(lock)
  assert removed
