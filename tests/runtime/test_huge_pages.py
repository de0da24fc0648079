"""Counts page faults of memory that is allocated, touched and freed repeatedly, as steps do."""

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


def _run_python(folder, *arguments, **environment):
  """Runs Python without variables of malloc, which keep a command from asking."""
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


def _count_page_faults(folder, program, **environment):
  """Counts the page faults in five rounds of `python -m rounds`."""
  (folder / "rounds.py").write_text(program)
  done = _run_python(folder, "-m", "rounds", "--flag=a b", **environment)
  faults, arguments = done.stdout.split(maxsplit=1)
  assert arguments == "['--flag=a b']\n"
  return int(faults)


def test_a_command_asks_and_a_program_that_imports_the_package_does_not(tmp_path):
  assert _count_page_faults(tmp_path, COMMAND) < SMALL
  assert _count_page_faults(tmp_path, OWN_PROGRAM) > 4 * SMALL
  assert _count_page_faults(tmp_path, COMMAND, MALLOC_TOP_PAD_="0") > 4 * SMALL


@pytest.mark.slow
def test_commands_do_so_before_jax_is_loaded():
  """Python lists the modules of the first start, which asks, and of the second one."""
  done = _run_python(
    ROOT, "-X", "importtime", "-m", "attn_unet_jax.info", "--config=tests/small.py"
  )
  loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
  second = len(loaded) - loaded[::-1].index("imported package")  # the heading of each list
  assert "attn_unet_jax.runtime.huge_pages" in loaded[:second]
  assert "jax" not in loaded[:second]
  assert "jax" in loaded[second:]
