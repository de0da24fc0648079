"""Where the seconds and the memory of `predict` go, for the scan of `benchmarks.peers`.

  python -m benchmarks.scan_stages --output=benchmarks/results/scan_stages.json

A scan of 512 x 512 x 300 by the paper's recipe, with the windows of `predict` and with those of
`inference.window=plan`, in float32 and in bfloat16 where the processor has it. Each is a process of
its own, `benchmarks.traced_stages`. `peak_gib` is the greatest memory of the process in a stage.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.runtime.process import run_command
from benchmarks.page import write_section
from benchmarks.peers.contenders import LARGE_PAGES
from benchmarks.peers.inputs import write_run, write_scan
from benchmarks.peers.turns import ProcessFailedError, run_process
from benchmarks.result import keep, machine
from benchmarks.traced_stages import MARK, TOTAL, summarise_starts, write_table

SLICES = 300

_WORKDIR = flags.DEFINE_string("workdir", "runs/peers", "Folder for what is drawn and made.")
_REPEATS = flags.DEFINE_integer("repeats", 2, "Starts of each.", lower_bound=1)
_PAGE = flags.DEFINE_string("page", "", "Page to write the table into; '': none.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures each way in turn, and writes the medians."""
  folder = Path(_WORKDIR.value or "").resolve()
  folder.mkdir(parents=True, exist_ok=True)
  scan, mask = folder / "scan.nii.gz", folder / "masks" / "stages.nii.gz"
  write_scan(scan, SLICES)
  write_run(folder / "run")
  write_run(folder / "body", "plan")
  given = [f"--input={scan}", f"--output={mask}", "--again", "--accept=hounsfield,pose"]
  bfloat16 = ["--engine=openvino", "--precision=bfloat16"]
  ways = {
    "float32": [f"--workdir={folder / 'run'}"],
    "bfloat16": [f"--workdir={folder / 'run'}", *bfloat16],
    "plan, float32": [f"--workdir={folder / 'body'}"],
    "plan, bfloat16": [f"--workdir={folder / 'body'}", *bfloat16],
  }
  found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
  for _ in range(_REPEATS.value or 1):
    for name, more in ways.items():
      try:
        done = run_process(["benchmarks.traced_stages", *given, *more], LARGE_PAGES)
      except ProcessFailedError as error:
        print(f"{name}: {error}")
        continue
      stages = json.loads(done.output.rpartition(MARK)[2].splitlines()[0])
      found[name].append(stages | {TOTAL: {"seconds": done.seconds, "peak_gib": done.peak_gib}})
  result: dict[str, Any] = {
    "machine": machine(),
    "slices": SLICES,
    "ways": dict(summarise_starts(found)),
  }
  keep(result, _OUTPUT.value)
  text = write_table(result["ways"])
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "stages", text)


if __name__ == "__main__":
  run_command(main)
