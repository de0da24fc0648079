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
def rounds(count):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(count):
    b"1" * 2**26
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
rounds(2)
print(rounds(5), sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(
  not huge_pages._can_use_huge_pages(),
  reason="a system that gives large pages to all or to none",
)


def _faults(folder, package, **environment):
  """Page faults in five rounds of `python -m PACKAGE.rounds`, which begins as our commands do."""
  (folder / package).mkdir(exist_ok=True)
  (folder / package / "__init__.py").write_text("import attn_unet_jax\n")
  (folder / package / "rounds.py").write_text(PROGRAM)
  free = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
  done = subprocess.run(
    [sys.executable, "-m", f"{package}.rounds", "--flag=a b"],
    env={**free, "PYTHONPATH": str(ROOT), **environment},
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  faults, arguments = done.stdout.split(maxsplit=1)
  assert arguments == "['--flag=a b']\n"
  return int(faults)


def test_a_command_asks_and_who_imports_the_package_decides_for_himself(tmp_path):
  assert _faults(tmp_path, "benchmarks") < SMALL
  assert _faults(tmp_path, "mine") > 4 * SMALL
  assert _faults(tmp_path, "benchmarks", MALLOC_TOP_PAD_="0") > 4 * SMALL


def test_commands_do_so_before_anything_else_is_loaded():
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "attn_unet_jax.info", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert "python -m attn_unet_jax.info" in done.stdout
  loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
  assert loaded.index("attn_unet_jax.runtime.huge_pages") < min(
    map(loaded.index, ("numpy", "jax", "absl"))
  )
