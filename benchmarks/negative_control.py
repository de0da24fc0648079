"""A recipe that does not learn, beside the one that does: plain SGD at 1e-4 against Adam at 1e-4.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.negative_control --data_dir=data --workdir=runs/negative_control

Attention U-Net with the released code's Dice for 15 epochs of 80 steps on phantoms of 4.5 mm,
patches of 32^3; only the optimiser differs (SGD: Nesterov's momentum 0.9). The source of this
project tabulates a training whose loss stayed near 0.97 for 15 epochs of SGD; its level depends on
its classes, its flatness is what is shown here. Row 0 is where both begin: the same network after
an epoch at a rate of 1e-12, so that its running batch statistics are those of the data, as theirs.
Writes the curves into a section of docs/reference/results.md.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.page import write_section
from benchmarks.result import keep, machine
from benchmarks.tables import COLUMNS, curves_table

START = (
  *("--config.optimizer.learning_rate=1e-12", "--config.train.epochs=1"),
  "--config.train.validate_every=1",
)
OPTIMIZERS = {
  "SGD": (
    "--config.optimizer.name=sgd",
    "--config.optimizer.momentum=0.9",
    "--config.optimizer.nesterov=true",
  ),
  "Adam": ("--config.optimizer.name=adam",),
}
COMMON = (
  *("--config.data.spacing_mm=4.5", "--config.data.patch=(32, 32, 32)"),
  *("--config.loss.dice=0.0", "--config.loss.bce=0.0", "--config.loss.reference_dice=1.0"),
  *("--config.optimizer.learning_rate=1e-4", "--config.optimizer.schedule=constant"),
  *("--config.train.epochs=15", "--config.train.validate_every=15"),
)

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_PAGE = flags.DEFINE_string("page", "docs/reference/results.md", "Page to write the curves into.")
_OUTPUT = flags.DEFINE_string(
  "output", "benchmarks/results/negative_control.json", "JSON to write."
)


def main() -> None:
  """Trains, prints and writes."""
  on = machine()
  start = losses("start", *OPTIMIZERS["Adam"], *START)
  curves = {name: [*start, *losses(name.lower(), *keys)] for name, keys in OPTIMIZERS.items()}
  keep({"machine": on, "curves": curves}, _OUTPUT.value)
  text = curves_table(curves)
  print(text)
  write_section(Path(_PAGE.value), "negative_control", text)


def losses(name: str, *keys: str) -> list[dict[str, float]]:
  """Trains one of the runs; by epoch, its losses on fixed patches."""
  workdir, data = Path(_WORKDIR.value or "") / name, f"--config.data.dir={_DATA_DIR.value}"
  runs.train("pancreas.py:phantom", workdir, data, *COMMON, *keys)
  rows = read_metrics(workdir / "metrics.csv")
  return [{column: float(row[column]) for column in COLUMNS} for row in rows]


if __name__ == "__main__":
  run_command(main)
