"""Page faults of memory that is allocated, touched and freed again and again, as by steps."""

import os
import subprocess
import sys

import pytest

from attn_unet_jax import pages
from tests.conftest import ROOT

SMALL = 2**14  # pages of 4 KiB in the 64 MiB that each round touches
PROGRAM = """
import resource
def rounds(count):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(count):
    b"1" * 2**26
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
rounds(2)
print(rounds(5), sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(
  not pages._would_be_given(), reason="a system that gives large pages to all or to none"
)


def _run(start="", **environment):
  """Page faults in five rounds, and the arguments seen; `start`: what the program does first."""
  free = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
  done = subprocess.run(
    [sys.executable, "-c", f"import sys\n{start}\n{PROGRAM}", "--flag=a b"],
    env={**free, **environment},
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  faults, arguments = done.stdout.split(maxsplit=1)
  assert arguments == "['--flag=a b']\n"
  return int(faults)


def test_a_command_asks_and_an_importer_decides_for_itself():
  as_a_command = "sys.argv[0] = '-m'\nimport attn_unet_jax"
  assert _run(as_a_command) < SMALL
  assert _run("import attn_unet_jax") > 4 * SMALL
  assert _run(as_a_command, MALLOC_TOP_PAD_="0") > 4 * SMALL


def test_commands_do_so_before_anything_else_is_loaded():
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "attn_unet_jax.info", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert "python -m attn_unet_jax.info" in done.stdout
  loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
  assert loaded.index("attn_unet_jax.pages") < min(map(loaded.index, ("numpy", "jax", "absl")))
