"""Tables of results as Markdown, each from the figures of one benchmark."""

import statistics
from typing import Any

from attn_unet_jax.evaluation.comparison import ComparisonRow, ComparisonTable
from attn_unet_jax.evaluation.summary import ScoreSummary
from benchmarks.page import spread, table

METRICS = ("dsc", "precision", "recall", "assd_mm")
COLUMNS = ("train_seg_loss", "validation_seg_loss", "test_seg_loss")


def systems_table(told: list[dict[str, Any]], compared: ComparisonTable) -> str:
  """The rows as Markdown, tested against the first; below, how to read them."""
  head = ["system", "parameters", "width /", "s a step", "min", "DSC", "precision", "recall"]
  head += ["ASSD mm", "Δ DSC", "p Wilcoxon (Holm)"]
  rows = table(head, [_cells(*pair) for pair in zip(told, compared.rows, strict=True)])
  cases = max(found.n for row in compared.rows for found in row.spread.values())
  about = (
    f"Mean ± sd over {cases} test cases, on their native grids; a score that is undefined (of an "
    "empty mask) is left out, and the number that is left then stands in brackets. Δ DSC: mean "
    f"difference to {told[0]['name']} over the cases of both; p: two-sided, of Wilcoxon's signed "
    f"rank test on them, and adjusted by Holm's rule for {len(told) - 1} systems. ASSD: the mean "
    "of the two directed averages. min: the whole run on the wall clock, with compilation, "
    "validation and test; s a step: the median over epochs, the first left out (it compiles)."
  )
  return "\n\n".join([rows, about, *(f"Note: {note}." for note in compared.notes)])


def papers_table(told: list[dict[str, Any]]) -> str:
  """What each system's paper reports, and what the recipe here leaves out."""
  head = ["system", "its paper reports", "here, beside the width"]
  rows = [[row["name"], row["published"], row["departs"] or "-"] for row in told]
  return table(head, rows) + "\n\n(r): recalled from other papers' tables, not read in the paper."


def _cells(told: dict[str, Any], row: ComparisonRow) -> list[str]:
  cases = max(found.n for found in row.spread.values())
  step = told["step_seconds"]
  cells = [
    told["name"],
    f"{told['parameters']:,}",
    f"{told['feature_scale']:g}",
    "-" if step is None else f"{step:.2f}",
    f"{told['wall_seconds'] / 60:.0f}",
    *(_mean_and_sd(row.spread[metric], 3, cases) for metric in METRICS[:3]),
    _mean_and_sd(row.spread["assd_mm"], 1, cases),
  ]
  if row.tests is None:
    return [*cells, "-", "-"]
  return [*cells, f"{row.tests.difference:+.3f}", f"{row.tests.p_wilcoxon:.2g} ({row.p_holm:.2g})"]


def _mean_and_sd(found: ScoreSummary, digits: int, cases: int) -> str:
  return spread((found.mean, found.sd, found.n), digits, cases)


def three_rows_table(rows: dict[str, dict[str, Any]]) -> str:
  """A row per training; scores as `summary.json` has them."""
  body = []
  for name, row in rows.items():
    spreads = [(row[metric]["mean"], row[metric]["sd"], row[metric]["n"]) for metric in METRICS]
    digits = (3, 3, 3, 1)
    cells = [spread(*pair, row["cases"]) for pair in zip(spreads, digits, strict=True)]
    body.append([name, str(row["checkpoint_step"]), *cells])
  return table(["training", "step", "DSC", "precision", "recall", "ASSD mm"], body)


def painter_table(rows: list[dict[str, Any]]) -> str:
  """A row per variant of the painter: validation DSC of each seed, and their mean."""
  found: dict[str, list[float]] = {}
  for row in rows:
    found.setdefault(row["name"], []).append(row["dsc"])
  cells = [
    [name, f"{statistics.mean(values):.3f}", ", ".join(f"{value:.3f}" for value in values)]
    for name, values in found.items()
  ]
  return table(["pancreas.py:real, with", "validation DSC", "of each seed"], cells)


def ablation_table(rows: list[dict[str, Any]]) -> str:
  """Both networks, each seed's mean DSC over the test cases, and the differences by seed."""
  names = list(dict.fromkeys(row["name"] for row in rows))
  by_name = {name: [row for row in rows if row["name"] == name] for name in names}
  seeds = len(rows) // len(names)
  head = ["network", "parameters", *(f"seed {seed}" for seed in range(seeds)), "mean ± sd of seeds"]
  body = [
    [name, f"{found[0]['parameters']:,}", *_seeds([row["dsc"] for row in found], "{:.3f}")]
    for name, found in by_name.items()
  ]
  plain, gated = ([row["dsc"] for row in found] for found in by_name.values())
  differences = [b - a for a, b in zip(plain, gated, strict=True)]
  return table(head, [*body, ["difference", "", *_seeds(differences, "{:+.3f}")]])


def _seeds(values: list[float], form: str) -> list[str]:
  mean = form.format(statistics.mean(values))
  return [*(form.format(value) for value in values), f"{mean} ± {statistics.stdev(values):.3f}"]


def curves_table(curves: dict[str, list[dict[str, float]]]) -> str:
  """A row per epoch, 0 the start: losses on fixed patches of training, validation, test cases."""
  parts = [column.removesuffix("_seg_loss") for column in COLUMNS]
  head = ["epoch", *(f"{name}, {part}" for name in curves for part in parts)]
  rows = [
    [str(epoch), *(f"{row[column]:.4f}" for row in of_epoch for column in COLUMNS)]
    for epoch, of_epoch in enumerate(zip(*curves.values(), strict=True))
  ]
  return table(head, rows)
