"""Page faults of memory that is allocated, touched and freed again and again, as by steps."""

import os
import subprocess
import sys

import pytest

from attn_unet_jax.runtime import huge_pages
from tests.conftest import ROOT

SMALL = 2**14  # pages of 4 KiB in the 64 MiB that each round touches
PROGRAM = """
import resource, sys
from attn_unet_jax.runtime.process import run_command
def rounds(count):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(count):
    b"1" * 2**26
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def main():
  rounds(2)
  print(rounds(5), sys.argv[1:])
"""
COMMAND = f"""{PROGRAM}
from absl import flags
flags.DEFINE_string("flag", "", "A flag.")
run_command(main)
"""
OWN_PROGRAM = f"""{PROGRAM}
main()
"""

pytestmark = pytest.mark.skipif(
  not huge_pages._can_use_huge_pages(),
  reason="a system that gives large pages to all or to none",
)


def _start(folder, *arguments, **environment):
  """A Python in whose environment nothing is said of malloc; else a command asks for nothing."""
  free = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
  done = subprocess.run(
    [sys.executable, *arguments],
    env={**free, "PYTHONPATH": str(ROOT), **environment},
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done


def _faults(folder, program, **environment):
  """Page faults in five rounds of `python -m rounds`."""
  (folder / "rounds.py").write_text(program)
  done = _start(folder, "-m", "rounds", "--flag=a b", **environment)
  faults, arguments = done.stdout.split(maxsplit=1)
  assert arguments == "['--flag=a b']\n"
  return int(faults)


def test_a_command_asks_and_who_imports_the_package_decides_for_himself(tmp_path):
  assert _faults(tmp_path, COMMAND) < SMALL
  assert _faults(tmp_path, OWN_PROGRAM) > 4 * SMALL
  assert _faults(tmp_path, COMMAND, MALLOC_TOP_PAD_="0") > 4 * SMALL


def test_commands_do_so_before_jax_is_loaded():
  """Python tells what the start that asks loads, and what the one that follows does."""
  told = _start(ROOT, "-X", "importtime", "-m", "attn_unet_jax.info", "--config=tests/small.py")
  loaded = [line.rpartition("|")[2].strip() for line in told.stderr.splitlines()]
  second = len(loaded) - loaded[::-1].index("imported package")  # the heading of each list
  assert "attn_unet_jax.runtime.huge_pages" in loaded[:second]
  assert "jax" not in loaded[:second]
  assert "jax" in loaded[second:]
