"""How well the expected DSC of masks orders them by their true DSC."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from attn_unet_jax.evaluation.overlap import Scores
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text

QUALITY = "quality.csv"
_MIN_CASES = 3  # two are always in the same order, or in the opposite one
_COLUMNS = ("case", "class", "expected_dsc", "dsc")

Estimates = Mapping[str, Mapping[str, float]]  # the expected DSC by case and class


class RankedEstimates(NamedTuple):
  """How the expected DSC of a class goes with the true one.

  Attributes:
    cases: those that have both.
    spearman: the rank correlation; None for fewer than three cases, or where all of either are
      equal.
    mean_difference: mean of |expected - true|.
  """

  cases: int
  spearman: float | None
  mean_difference: float


def rank_estimates(estimates: Estimates, rows: Mapping[str, Scores]) -> dict[str, RankedEstimates]:
  """Compares estimates with scores by class; a class without a case that has both is left out.

  Args:
    estimates: the expected DSC.
    rows: the scores by case.
  """
  pairs: dict[str, list[tuple[float, float]]] = {}
  for case, expected in estimates.items():
    for name, scores in rows[case].items():  # the classes that the data labels
      if name in expected and not math.isnan(scores["dsc"]):
        pairs.setdefault(name, []).append((expected[name], scores["dsc"]))
  return {name: _rank_pairs(np.array(found)) for name, found in pairs.items()}


def _rank_pairs(pairs: np.ndarray) -> RankedEstimates:
  # Equal values have no order: SciPy warns, and returns NaN.
  varies = len(pairs) >= _MIN_CASES and np.ptp(pairs, axis=0).all()
  rho = float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic) if varies else None
  return RankedEstimates(len(pairs), rho, float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()))


def write_estimates(
  folder: Path,
  estimates: Estimates,
  rows: Mapping[str, Scores],
  ranked: Mapping[str, RankedEstimates],
) -> None:
  """Writes `quality.csv`, and prints a line for each class that was ranked; nothing if none was.

  The file has a line for each case and class, with its expected and its true DSC.
  """
  if not ranked:
    return
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(_COLUMNS)
  for case, expected in estimates.items():
    for name, scores in rows[case].items():  # the classes that the data labels
      if name in expected:
        writer.writerow([case, name, f"{expected[name]:.6g}", f"{scores['dsc']:.6g}"])
  write_text(folder / QUALITY, text.getvalue())
  for name, one in ranked.items():
    rho = "undefined" if one.spearman is None else f"{one.spearman:.3f}"
    cases = "case" if one.cases == 1 else "cases"
    print_line(
      f"{name}: expected against true DSC: Spearman's rho {rho}, mean difference "
      f"{one.mean_difference:.3f}, {one.cases} {cases}"
    )


def read_estimates(folder: Path) -> dict[str, dict[str, float]]:
  """Reads the expected DSC in `quality.csv`; empty if there is no such file.

  Raises:
    UserError: the file is damaged.
  """
  found: dict[str, dict[str, float]] = {}
  path = folder / QUALITY
  try:
    with path.open(newline="", encoding="utf-8") as file:
      for row in csv.DictReader(file):
        found.setdefault(row["case"], {})[row["class"]] = float(row["expected_dsc"])
  except FileNotFoundError:
    return {}
  except (KeyError, TypeError, ValueError, csv.Error) as error:
    raise UserError(f"{path}: not a table of estimates ({error}); evaluate the run again") from None
  return found
