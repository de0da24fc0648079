"""The help of every command: what it says, and that nobody waits for it."""

import subprocess
import sys

import pytest

from attn_unet_jax.__main__ import COMMANDS
from tests.conftest import ROOT, run_command

MAIN = "attn_unet_jax.main"
SLOW = pytest.mark.slow
MODULES = [
  module if module == MAIN else pytest.param(module, marks=SLOW) for module, _ in COMMANDS.values()
]


@pytest.mark.parametrize("command", MODULES)
def test_help_says_how_it_is_used_and_is_no_error(command):
  done = run_command(command, "--help")
  assert (done.returncode, done.stderr) == (0, "")
  # The demo is written as a user starts it after `pip install`.
  ways = (f"python -m {command} --", f"attn-unet-jax {command.rpartition('.')[2]} --")
  assert any(way in done.stdout for way in ways)


@pytest.mark.parametrize("command", MODULES)
def test_help_waits_for_no_library_that_loads_for_long(command):
  # Not by a fork, which has them.
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", command, "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  modules = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines())
  loaded = {module.partition(".")[0] for module in modules}
  assert command.partition(".")[0] in loaded
  assert not loaded & {"jax", "flax", "optax", "orbax", "scipy", "matplotlib", "nibabel"}
  assert not loaded & {"tensorflow", "tensorflow_datasets", "openvino", "pydicom"}
