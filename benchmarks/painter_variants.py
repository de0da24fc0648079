"""The variants that `benchmarks.painter_tuning` trains, and what was measured of them before."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The recipe as it was when the table was begun: rims of bones and fat in muscles came later.
_REAL = (
  "pancreas.py:real",
  "--config.painting.bone_rim_hu=(0.0,0.0)",
  "--config.painting.muscle_fat=(0.0,0.0)",
)
# In the reader's words -> the experiment, and what differs from it.
VARIANTS: dict[str, tuple[str, ...]] = {
  "as it was: half painted, CT densities, six organs": _REAL,
  "real slabs alone": ("pancreas.py:slabs",),
  "a quarter painted": (
    *_REAL,
    "--config.data.also_share=0.25",
  ),
  "three quarters painted": (
    *_REAL,
    "--config.data.also_share=0.75",
  ),
  "painted alone": (
    *_REAL,
    "--config.data.also_share=0.999",
  ),
  "three maps in place of nine": (
    *_REAL,
    "--config.data.also_folds=benchmarks/three_maps.json",
  ),
  "the pancreas alone": (
    *_REAL,
    "--config.data.labels=pancreas=pancreas+tumour",
    "--config.data.also_labels=pancreas",
    "--config.inference.one_piece=pancreas",
  ),
  "free means, as SynthSeg": (
    *_REAL,
    "--config.painting.free_tissues=1.0",
  ),
  "CT densities alone": (
    *_REAL,
    "--config.painting.free_tissues=0.0",
  ),
  "no texture": (
    *_REAL,
    "--config.painting.texture=(0.0,0.0)",
  ),
  "fat in the pancreas to 60 %": (
    *_REAL,
    "--config.painting.fat=(0.0,0.6)",
  ),
  "wider poses": (
    *_REAL,
    "--config.augment.rotate_deg=(15.0,15.0,15.0)",
    "--config.augment.deform_sd=(3.0,3.0,1.4)",
  ),
  "narrow poses": (
    *_REAL,
    "--config.augment.rotate_deg=(0.0,0.0,5.0)",
    "--config.augment.scale=(0.95,1.05)",
    "--config.augment.deform_sd=(0.0,0.0,0.0)",
  ),
  "no noise of nnU-Net's": (
    *_REAL,
    "--config.augment.noise_probability=0.0",
    "--config.augment.blur_probability=0.0",
    "--config.augment.low_resolution_probability=0.0",
    "--config.augment.gamma_probability=0.0",
  ),
  # New ones come last: the folder of a variant's runs is called after its place here.
  "bowel, vessels and lesions that no map names": (
    *_REAL,
    "--config.painting.clutter=(0.1,0.9)",
    "--config.painting.lesions=0.7",
    "--config.painting.fat=(0.0,0.2)",
    "--config.painting.blur_mm=(1.0,2.6)",
    "--config.painting.noise_hu=(2.0,14.0)",
  ),
  "rims of bones and fat in muscles, as it is now": ("pancreas.py:real",),
}


def read_rows(path: Path, budget: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Reads what a result of the same budget holds; [] if there is none, or it is of another."""
  if not path.exists():
    return []
  result = json.loads(path.read_text())
  rows: list[dict[str, Any]] = result["runs"] if budget.items() <= result.items() else []
  return rows
