"""Ours against the peers on this machine, in one environment and in turn.

  python -m benchmarks.peers.compare --output=benchmarks/results/peers.json   (make bench)
  python -m benchmarks.peers.compare --quick                                  (make bench-quick)

Each contender has a process of its own, so that each has its own memory, pages and threads; they
are asked in turn, and each timed call follows one that is not timed. `times_ours` is how many times
as long as the first contender, ours in float32: above 1, ours is faster. Contenders are the
released network (in our PyTorch twin of it) as an expert starts it, with pages of 2 MiB, and as a
user does; MONAI's AttentionUnet, another network of two thirds of the operations; and ours in
OpenVINO.

  training_step  forward, both gradients and new statistics of one patch
  inference      the scores of one patch
  scan           a drawn scan of 512 x 512 x 300, from its file to its mask, by the paper's recipe
                 (12 windows), and with `inference.window=plan` (6, within the body)
  training       a step of a training on five scans with augmentation, optimiser and loader included
"""

import time
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.process import run_command
from benchmarks.page import write_section
from benchmarks.peers.contenders import list_contenders
from benchmarks.peers.programs import compare_scans, compare_trainings
from benchmarks.peers.tables import write_tables
from benchmarks.peers.turns import time_in_turn
from benchmarks.result import keep, machine, read_versions

PATCHES = ("training_step", "inference")
PROGRAMS = {"scan": compare_scans, "training": compare_trainings}

_PARTS = flags.DEFINE_list("parts", [*PATCHES, *PROGRAMS], "What is measured.")
_QUICK = flags.DEFINE_bool("quick", False, "The contenders of the goals alone, and on one patch.")
_PATCH = flags.DEFINE_integer("patch", 64, "Edge of the patch, in voxels.", lower_bound=16)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls of each on a patch.", lower_bound=1)
_PROGRAM_REPEATS = flags.DEFINE_integer("program_repeats", 2, "Starts of each.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/peers", "Folder for what is drawn and made.")
_PAGE = flags.DEFINE_string("page", "", "Page to write the tables into; '': none.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures part by part, and writes after each."""
  asked = _PARTS.value or []
  known = [*PATCHES, *PROGRAMS]
  if unknown := [part for part in asked if part not in known]:
    raise UserError(f"--parts={unknown[0]}: must be out of {', '.join(known)}")
  result: dict[str, Any] = {"machine": machine(), "versions": read_versions()}
  result |= {"patch": _PATCH.value, "took_s": {}}
  for part in [part for part in asked if part in PATCHES or not _QUICK.value]:
    print_line(f"measuring {part}")
    began = time.monotonic()
    if part in PROGRAMS:
      folder = Path(_WORKDIR.value or "").resolve()
      folder.mkdir(parents=True, exist_ok=True)
      result[part] = PROGRAMS[part](folder, _PROGRAM_REPEATS.value)
    else:
      contenders = list_contenders(part, quick=_QUICK.value)
      result[part] = time_in_turn(contenders, part, _PATCH.value or 64, _REPEATS.value or 1)
    result["took_s"][part] = round(time.monotonic() - began)
    keep(result, _OUTPUT.value)
  text = write_tables(result)
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "peers", text)


if __name__ == "__main__":
  run_command(main)
