"""Attention gates against as many parameters without them, each pair with three seeds.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.ablation --data_dir=data --workdir=runs/ablation

The paper's capacity control at half its width: U-Net at feature_scale 7.64 against Attention U-Net
with two gates a skip at 8 (at full width 3.82 against 4: 6,444,328 and 6,473,322 parameters with
four classes). On phantoms of 4.5 mm, patches of 32^3, 400 steps of two; the same cases, patches and
augmentation for both of a pair. Writes a section of docs/reference/results.md; what is done stays.
"""

import statistics
from pathlib import Path

from absl import flags

from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.page import write_section
from benchmarks.result import keep, machine
from benchmarks.tables import ablation_table

PAIR = {"U-Net": ("unet", "7.64"), "Attention U-Net, two gates": ("attention_unet", "8.0")}
SHORT = (
  *("--config.data.spacing_mm=4.5", "--config.data.patch=(32, 32, 32)"),
  *("--config.train.epochs=5", "--config.train.validate_every=5"),
)

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each network.", lower_bound=2)
_PAGE = flags.DEFINE_string("page", "docs/reference/results.md", "Page to write the table into.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/ablation.json", "JSON to write.")


def main() -> None:
  """Trains, compares, prints and writes."""
  folder, data = Path(_WORKDIR.value or ""), f"--config.data.dir={_DATA_DIR.value}"
  on, rows = machine(), []
  for seed in range(_SEEDS.value):
    for name, (model, scale) in PAIR.items():
      workdir = folder / f"{model}_{seed}"
      width = f"--config.model.feature_scale={scale}"
      keys = (f"--config.model.name={model}", width, f"--config.seed={seed}")
      runs.train("pancreas.py:phantom", workdir, data, *keys, *SHORT)
      scores = [case["dsc"] for case in runs.read_scores(workdir).scores["pancreas"].values()]
      mean, parameters = statistics.mean(scores), runs.parameters(workdir)
      rows.append({"name": name, "seed": seed, "parameters": parameters, "dsc": mean})
  keep({"machine": on, "runs": rows}, _OUTPUT.value)
  text = ablation_table(rows)
  print(text)
  write_section(Path(_PAGE.value), "ablation", text)


if __name__ == "__main__":
  run_command(main)
