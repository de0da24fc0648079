r"""What `--config.deterministic=true` costs a training step, and whether bits repeat with it.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.deterministic_cost --config=experiments/pancreas.py:phantom \
    --output=benchmarks/results/deterministic_cost.json

XLA reads the flag once, so each measurement is a process of its own, without and with it in turn.
All train from the same start on the same batch, augmented anew by each step. Every process compiles
for itself: a program that was kept would bring along the kernels that another process chose. On a
CPU, which repeats its bits anyway, the ratio is about 1.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.workflows.network import build_run_network
from benchmarks import repeats
from benchmarks.result import keep, machine
from benchmarks.runs import process as start_process

_PROCESSES = flags.DEFINE_integer("processes", 3, "Processes of each kind.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 30, "Timed steps of a process.", lower_bound=1)
_UNTIMED = flags.DEFINE_integer("untimed", 5, "Steps before them; the first compiles.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_CHILD = flags.DEFINE_string("child", None, "For the command's own use: measure, and write here.")
define_config("experiments/pancreas.py:phantom")


def main() -> None:
  """Measures in child processes, prints and writes; or is such a child."""
  if _CHILD.value:
    _measure(Path(_CHILD.value))
    return
  if "deterministic" in os.environ.get("XLA_FLAGS", ""):
    raise UserError("XLA_FLAGS asks for determinism, of all processes: take that out of it")
  on, found = machine(), _in_turn()
  usual, slower = (
    [repeats.Repeat(one["step_s"], one["digest"]) for one in ones] for ones in found.values()
  )
  result = {
    "machine": on,
    "environment": found[False][0]["environment"] | {"command": sys.argv[1:]},
    "steps": _STEPS.value,
    **repeats.cost(usual, slower),
  }
  keep(result, _OUTPUT.value)


def _in_turn() -> dict[bool, list[dict[str, Any]]]:
  """What each process measured, without determinism and with it."""
  found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
  with tempfile.TemporaryDirectory() as folder:
    for number in range(_PROCESSES.value):
      for deterministic, ones in found.items():
        ones.append(_child(Path(folder), deterministic))
        kind = "deterministic" if deterministic else "usual"
        print(f"process {number + 1}, {kind}: {ones[-1]['step_s']:.4g} s a step", flush=True)
  return found


def _child(folder: Path, deterministic: bool) -> dict[str, Any]:
  """What a process measured.

  This one never looks at a device: it would take three quarters of a GPU's memory from it.
  """
  output = folder / "child.json"
  changed = (f"--config.deterministic={deterministic}", f"--config.data.prepared={folder}/prepared")
  env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
  start_process(
    "benchmarks.deterministic_cost", *sys.argv[1:], *changed, f"--child={output}", env=env
  )
  return json.loads(output.read_text())


def _measure(output: Path) -> None:
  config = CONFIG_FLAGS.read()
  module = build_run_network(config, len(open_fold(config.data).mapping.classes) + 1)
  found = repeats.repeat(config, module, _UNTIMED.value, _STEPS.value)
  write_text(output, json.dumps({**found._asdict(), "environment": describe_environment()}))


if __name__ == "__main__":
  process.run_command(main, CONFIG_FLAGS)
