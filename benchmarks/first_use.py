"""What a user waits for: the help of every command, and a first mask of a small scan.

  python -m benchmarks.first_use --output=benchmarks/results/first_use.json

`help` is in CPU seconds, the median of several starts; so that it says what loads, and not how busy
the machine is. `predict` segments a drawn scan of 512 x 512 x 20 by the bundled network, by the
clock, with an empty cache of programs and then with a full one.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.__main__ import COMMANDS
from attn_unet_jax.runtime.process import run_command
from benchmarks.page import table, write_section
from benchmarks.peers.inputs import write_scan
from benchmarks.result import keep, machine
from benchmarks.traced_process import trace_until

_SLICES = 20

_REPEATS = flags.DEFINE_integer("repeats", 5, "Starts of each help.", lower_bound=1)
_PAGE = flags.DEFINE_string("page", "", "Page to write the table into; '': none.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures the helps in turn, then the masks."""
  helps: dict[str, list[float]] = {name: [] for name in COMMANDS}
  for _ in range(_REPEATS.value or 1):
    for name, seconds in helps.items():
      seconds.append(trace_until(None, COMMANDS[name][0], "--help").cpu_s)
  result: dict[str, Any] = {
    "machine": machine(),
    "help_cpu_s": {name: round(statistics.median(one), 2) for name, one in helps.items()},
    "predict": {},
  }
  with tempfile.TemporaryDirectory() as folder:
    scan = Path(folder) / "scan.nii.gz"
    write_scan(scan, _SLICES)
    command = ["attn_unet_jax.predict", f"--input={scan}", f"--output={folder}/mask.nii.gz"]
    for engine in ("auto", "jax"):
      environment = {
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/{engine}",
        "XDG_CACHE_HOME": f"{folder}/{engine}",
      }
      for state in ("cold", "warm"):
        given = ("--again", "--accept=hounsfield,pose", f"--engine={engine}")
        usage = trace_until(None, *command, *given, environment=environment)
        result["predict"][f"--engine={engine}, {state}"] = usage._asdict()
  keep(result, _OUTPUT.value)
  text = write_table(result)
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "first use", text)


def write_table(result: dict[str, Any]) -> str:
  """Writes a row for all helps, and one for each mask."""
  helps = result["help_cpu_s"]
  least, most = min(helps, key=helps.get), max(helps, key=helps.get)
  text = f"{helps[least]:.2f} s (`{least}`) to {helps[most]:.2f} s (`{most}`)"
  rows = [["`--help` of a command", text, ""]]
  for name, one in result["predict"].items():
    cells = [f"{one['cpu_s']:.1f} s", f"{one['wall_s']:.1f} s"]
    rows.append([f"`predict` of 512 x 512 x {_SLICES}, `{name.replace(', ', '`, ')}", *cells])
  return table(["", "CPU seconds", "by the clock"], rows)


if __name__ == "__main__":
  run_command(main)
