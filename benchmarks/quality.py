r"""How well the expected DSC of a network's masks orders scans of several kinds by their true DSC.

  python -m benchmarks.real_ct --network=builtin:pancreas --data_dir=data --workdir=runs/real_ct \
    --parts=slabs,paintings --paintings=painted_ct/maps
  python -m attn_unet_jax.evaluate --workdir=builtin:pancreas --output=runs/phantoms \
    --config.data.dataset=phantom_ct/demo --config.data.dir=data --part=test \
    --config.data.labels=pancreas,liver=none,spleen=none,stomach=none,duodenum=none,kidney=none
  python -m benchmarks.quality --tables=slabs=runs/real_ct/slabs,paintings=runs/real_ct/paintings,\
phantoms=runs/phantoms --output=benchmarks/results/quality.json

The tables are the `quality.csv` that `evaluate` writes, one below each folder. A class is ranked
within each kind of scan, and over all of them together.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.evaluation.overlap import Scores
from attn_unet_jax.evaluation.quality_scores import QUALITY, rank_estimates, read_estimates
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.process import run_command
from benchmarks.result import keep

_TABLES = flags.DEFINE_list("tables", None, "KIND=FOLDER,... with scores.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def rank_tables(folders: Mapping[str, Path]) -> dict[str, Any]:
  """Ranks the estimates of each kind of scan, and of all kinds together."""
  found, every, rows = dict[str, Any](), dict[str, Mapping[str, float]](), dict[str, Scores]()
  for kind, folder in folders.items():
    tables = list(folder.rglob(QUALITY))
    if len(tables) != 1:
      raise UserError(f"--tables={kind}={folder}: has {len(tables)} {QUALITY}, not one")
    # Cases of two kinds may be called alike.
    estimates = {f"{kind}/{case}": one for case, one in read_estimates(tables[0].parent).items()}
    scores = _read_scores(tables[0], kind)
    found[kind] = _describe(estimates, scores)
    every, rows = every | estimates, rows | scores
  return found | {"all": _describe(every, rows)}


def _describe(estimates: Mapping[str, Mapping[str, float]], rows: Mapping[str, Scores]) -> Any:
  return {name: one._asdict() for name, one in rank_estimates(estimates, rows).items()}


def _read_scores(table: Path, kind: str) -> dict[str, Scores]:
  rows: dict[str, Scores] = {}
  with table.open(newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
      rows.setdefault(f"{kind}/{row['case']}", {})[row["class"]] = {"dsc": float(row["dsc"])}
  return rows


def main() -> None:
  """Ranks what the flags name."""
  pairs = [text.partition("=") for text in _TABLES.value or []]
  keep(rank_tables({kind: Path(folder) for kind, _, folder in pairs}), _OUTPUT.value)


if __name__ == "__main__":
  run_command(main)
