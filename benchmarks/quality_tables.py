"""Reads and ranks the tables of `benchmarks.quality`."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.evaluation.overlap import Scores
from attn_unet_jax.evaluation.quality_scores import QUALITY, rank_estimates, read_estimates
from attn_unet_jax.runtime.errors import UserError


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
