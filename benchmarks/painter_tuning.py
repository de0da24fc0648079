"""What of the painter helps on real CT: short trainings on one budget, two seeds each.

  python -m benchmarks.painter_tuning --data_dir=data --workdir=runs/painter

Each variant changes `pancreas.py:real`, as it was before rims of bones and fat in muscles came, in
one thing and is trained for the same number of steps on the same patients. Its figure is the DSC
over the validation slabs after the last step. The scores of the test patients, which `main` writes
too, are read by nothing here. Hours of two cores: what is done stays, a variant that was stopped
goes on, and the JSON is written after each. Its rows of the same budget are not trained again, so
that the table can be filled in several sittings.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.page import write_section
from benchmarks.painter_variants import VARIANTS, read_rows
from benchmarks.result import keep, machine
from benchmarks.tables import painter_table

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_SEEDS = flags.DEFINE_integer("seeds", 2, "Runs of each variant.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of 50 steps of each run.", lower_bound=1)
_FLAGS = flags.DEFINE_multi_string(
  "flag", [], "A flag of main for every run, such as --flag=--config.model.dtype=bfloat16."
)
_ONLY = flags.DEFINE_multi_string("only", [], "Variants to run, by a part of their name; '': all.")
_PAGE = flags.DEFINE_string("page", "", "Page to write the table into; '': none.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/painter_tuning.json", "JSON to write.")


def main() -> None:
  """Trains variant after variant, prints and writes."""
  chosen = [
    name for name in VARIANTS if not _ONLY.value or any(part in name for part in _ONLY.value)
  ]
  budget = {"epochs": _EPOCHS.value, "flags": _FLAGS.value}
  rows = read_rows(Path(_OUTPUT.value), budget)
  trained = {(row["name"], row["seed"]) for row in rows}
  for seed in range(_SEEDS.value):
    for name in chosen:
      if (name, seed) in trained:
        continue
      rows.append({"name": name, "seed": seed, "dsc": _train_variant(name, seed)})
      keep({"machine": machine(), **budget, "runs": rows}, _OUTPUT.value)
      print_line(f"{name}, seed {seed}: validation DSC {rows[-1]['dsc']:.3f}")
  text = painter_table(rows)
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "painter", text)


def _train_variant(name: str, seed: int) -> float:
  """Trains a variant and returns its DSC over the validation slabs."""
  workdir = Path(_WORKDIR.value or "") / f"{list(VARIANTS).index(name):02d}_{seed}"
  experiment, *differing = VARIANTS[name]
  epochs = _EPOCHS.value
  budget = (f"--config.train.epochs={epochs}", f"--config.train.validate_every={epochs}")
  runs.train(
    experiment,
    workdir,
    f"--config.data.dir={_DATA_DIR.value}",
    f"--config.seed={seed}",
    *budget,
    *_FLAGS.value,
    *differing,
  )
  return float(read_metrics(workdir / "metrics.csv")[-1]["validation_dsc"])


if __name__ == "__main__":
  run_command(main)
