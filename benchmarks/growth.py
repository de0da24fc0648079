"""How time and memory grow: `predict` with a scan's voxels, a training's start with its cases.

  python -m benchmarks.growth --output=benchmarks/results/growth.json

Each command has a process of its own. Seconds are CPU seconds of all its threads, so that other
work on the machine matters less; memory is the peak of the process. The part `first_steps` is the
demo's training until it says how long its steps take, which it does after six: without a program in
the cache, and with all.
"""

import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.runtime.process import run_command
from benchmarks.page import table, write_section
from benchmarks.peers.inputs import EXPERIMENT, write_scan, write_training_scans
from benchmarks.result import keep, machine
from benchmarks.traced_process import Usage, trace_until

SLICES, CASES = (100, 200, 400), (4, 8, 16)
_SIX_STEPS = "a step takes "

_PARTS = flags.DEFINE_list("parts", ["predict", "start", "first_steps"], "What is measured.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the demo's records are.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/growth", "Folder for what is drawn.")
_PAGE = flags.DEFINE_string("page", "", "Page to write the tables into; '': none.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures part by part, and writes after each."""
  folder = Path(_WORKDIR.value or "").resolve()
  folder.mkdir(parents=True, exist_ok=True)
  result: dict[str, Any] = {"machine": machine()}
  measures = {"predict": _trace_predictions, "start": _trace_starts, "first_steps": _trace_steps}
  for part in _PARTS.value or ():
    result[part] = {name: usage._asdict() for name, usage in measures[part](folder).items()}
    keep(result, _OUTPUT.value)
  text = "\n\n".join(write_table(part, result[part]) for part in _PARTS.value or ())
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "growth", text)


def _trace_predictions(folder: Path) -> dict[str, Usage]:
  """Segments scans of growing length by the bundled network."""
  usages = {}
  for slices in (SLICES[0], *SLICES):  # the first one twice: it fills the cache of programs
    scan, mask = folder / f"scan_{slices}.nii.gz", folder / "masks" / f"{slices}.nii.gz"
    write_scan(scan, slices)
    command = ["attn_unet_jax.predict", f"--input={scan}", f"--output={mask}", "--again"]
    usages[f"512 x 512 x {slices}"] = trace_until(None, *command, "--accept=hounsfield,pose")
  return usages


def _trace_starts(folder: Path) -> dict[str, Usage]:
  """Starts trainings on folders of growing number of cases, until the first step is compiled."""
  usages = {}
  for count in CASES:
    scans = folder / f"scans_{count}"
    write_training_scans(scans, count)
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
      command = ["attn_unet_jax.main", f"--config={EXPERIMENT}:small", f"--workdir={workdir}/run"]
      given = (f"--config.data.folder={scans}", "--config.data.accept=hounsfield,pose")
      usages[f"{count} cases"] = trace_until("compiling the training step", *command, *given)
  return usages


def _trace_steps(folder: Path) -> dict[str, Usage]:
  """Trains the demo for six steps, with an empty cache of programs and then with a full one."""
  usages = {}
  with tempfile.TemporaryDirectory(dir=folder) as cache:
    # This process has set the variable to the user's own cache, which would win over others.
    environment = {"JAX_COMPILATION_CACHE_DIR": cache}
    for name in ("nothing compiled before", "compiled before"):
      with tempfile.TemporaryDirectory(dir=folder) as workdir:
        command = ["attn_unet_jax.main", f"--config={EXPERIMENT}:phantom"]
        command += [f"--workdir={workdir}/run", f"--config.data.dir={_DATA_DIR.value}"]
        usages[name] = trace_until(_SIX_STEPS, *command, environment=environment)
  return usages


def write_table(part: str, usages: dict[str, dict[str, float]]) -> str:
  """Writes the table of a part."""
  heads = {
    "predict": "`predict`, the bundled network",
    "start": "a training's start, before its step is compiled",
    "first_steps": "the demo's first six steps",
  }
  rows = [
    [name, f"{one['cpu_s']:.1f}", f"{one['wall_s']:.1f}", f"{one['peak_gib']:.2f}"]
    for name, one in usages.items()
  ]
  return table([heads[part], "CPU s", "s by the clock", "peak GiB"], rows)


if __name__ == "__main__":
  run_command(main)
