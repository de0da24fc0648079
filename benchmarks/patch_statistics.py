r"""How like patches of real CT the painted ones are, about the pancreas, beside each other.

  python -m benchmarks.patch_statistics --data_dir=data \
    --output=benchmarks/results/patch_statistics.json

Takes the first patches of `pancreas.py:real`, as the network sees them, and of each that holds
pancreas what a painter may get wrong: how much fat lies beside it, how dense it is, how much it
differs from its neighbours and within itself, and how steep edges are. Real slabs are those of the
training part of the folds. `--change` paints otherwise, such as
--change=painting.clutter=(0.0,0.0).
"""

import ast

import numpy as np
from absl import flags

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.runtime.process import run_command
from benchmarks.first_patches import make_first_patches, measure_patch
from benchmarks.page import table
from benchmarks.result import keep, machine

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_STEPS = flags.DEFINE_integer("steps", 60, "Steps of four patches each.", lower_bound=1)
_CHANGES = flags.DEFINE_multi_string(
  "change", [], "Keys of the config and their values, KEY=VALUE."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_LEAST = 150  # voxels of pancreas in a patch that is counted: 4 ml
_SHOWN = (10, 50, 90)  # percentiles over the patches


def main() -> None:
  """Measures, prints and writes."""
  changes = {
    key: ast.literal_eval(value) for key, value in (c.split("=", 1) for c in _CHANGES.value)
  }
  draft = load_experiment("experiments/pancreas.py:real")
  config = replace_keys(resolve_draft(draft), {"data.dir": _DATA_DIR.value, **changes})
  low, high = config.data.window_hu
  found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
  for patch in make_first_patches(config, _STEPS.value):
    if np.count_nonzero(patch.label == 1) >= _LEAST:
      hu = patch.image * (high - low) + low
      found[patch.is_painted].append(measure_patch(hu, patch.label))
  parts = {"slabs of real CT": found[False], "painted": found[True]}
  rows = {
    name: {key: [float(x) for x in _find_spread(patches, key)] for key in patches[0]}
    for name, patches in parts.items()
  }
  counts = {name: len(patches) for name, patches in parts.items()}
  keep({"machine": machine(), "changes": changes, "patches": counts, **rows}, _OUTPUT.value)
  head = ["median (10 to 90 %)", *(f"{name}, {n} patches" for name, n in counts.items())]
  body = [[key, *(_format_range(row[key]) for row in rows.values())] for key in rows["painted"]]
  print(table(head, body))


def _find_spread(patches: list[dict[str, float]], key: str) -> np.ndarray:
  spread: np.ndarray = np.nanpercentile([patch[key] for patch in patches], _SHOWN).round(3)
  return spread


def _format_range(values: list[float]) -> str:
  digits = 2 if max(map(abs, values)) <= 1 else 0
  low, middle, high = (f"{value:.{digits}f}" for value in values)
  return f"{middle} ({low} to {high})"


if __name__ == "__main__":
  run_command(main)
