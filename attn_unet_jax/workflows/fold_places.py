"""Finds the devices, or the cores, on which folds are trained side by side."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

from attn_unet_jax.runtime.cores import list_usable_cores
from attn_unet_jax.runtime.errors import UserError

# An accelerator that a process has opened is no longer free for those that it starts.
_LOOK = """
import json, jax
from attn_unet_jax.runtime.xla import describe_devices
ids = [device.local_hardware_id for device in jax.local_devices()]
print(json.dumps([jax.default_backend(), ids, describe_devices()]))
"""


class FoundDevices(NamedTuple):
  """The devices of this machine: their platform, their numbers, and what they are called."""

  platform: str
  numbers: Sequence[int]
  described: str


class FoldPlace(NamedTuple):
  """Where one fold is trained.

  Attributes:
    name: of the place, for the screen.
    gpu: the number of the GPU, among those that this process may see; None: there is none.
    cores: the cores that it may use; (): all.
  """

  name: str
  gpu: int | None = None
  cores: tuple[int, ...] = ()


def find_devices() -> FoundDevices:
  """Finds the devices without opening them; this process then computes on the CPU alone.

  Raises:
    UserError: they are neither GPUs nor a CPU.
    RuntimeError: JAX has no device.
  """
  # By default JAX takes three quarters of each GPU's memory, for which others may have no room.
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  looked = subprocess.run(
    [sys.executable, "-c", _LOOK], env=environment, capture_output=True, text=True, check=False
  )
  if looked.returncode:
    jax.devices()  # raises, with the reason that the command explains
    raise RuntimeError(f"the devices were not found: {looked.stderr.strip()}")
  # The last line: libraries may print before.
  found = FoundDevices(*json.loads(looked.stdout.splitlines()[-1]))
  if found.platform not in ("cpu", "gpu"):
    raise UserError(
      f"--parallel_folds: trains a fold on each GPU, or on a part of the CPU's cores, and here is "
      f"{found.described}; leave it out"
    )
  jax.config.update("jax_platforms", "cpu")
  return found


def list_places(found: FoundDevices, folds: int) -> list[FoldPlace]:
  """Lists places for at most so many folds: a GPU each, or equal parts of the cores."""
  if found.platform == "gpu":
    return [FoldPlace(f"GPU {number}", gpu=number) for number in found.numbers[:folds]]
  cores = list_usable_cores()
  count = min(folds, len(cores))
  parts = [tuple(cores[number::count]) for number in range(count)]
  return [FoldPlace(_describe_cores(part), cores=part) for part in parts]


def _describe_cores(cores: Sequence[int]) -> str:
  return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
