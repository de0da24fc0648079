"""Tables of results as Markdown, each from the figures of one benchmark."""

import statistics
from collections.abc import Sequence
from typing import Any

from attn_unet_jax.comparison.table import Row
from benchmarks.page import spread, table

METRICS = ("dsc", "precision", "recall", "assd_mm")
COLUMNS = ("train_seg_loss", "validation_seg_loss", "test_seg_loss")


def systems_table(told: list[dict[str, Any]], rows: Sequence[Row]) -> str:
  """The rows as Markdown; tests are against the first."""
  head = ["system", "parameters", "width /", "s a step", "min", "DSC", "precision", "recall"]
  head += ["ASSD mm", "Δ DSC", "p Wilcoxon (Holm)", "DSC its paper reports"]
  return table(head, [_cells(*pair) for pair in zip(told, rows, strict=True)])


def _cells(told: dict[str, Any], row: Row) -> list[str]:
  cells = [
    told["name"],
    f"{told['parameters']:,}",
    f"{told['feature_scale']:g}",
    f"{told['step_seconds']:.2f}",
    f"{told['training_seconds'] / 60:.1f}",
    *(spread(row.spread[metric]) for metric in METRICS[:3]),
    spread(row.spread["assd_mm"], 1),
  ]
  if row.tests is None:
    return [*cells, "-", "-", told["published"]]
  p = f"{row.tests.p_wilcoxon:.2g} ({row.p_holm:.2g})"
  return [*cells, f"{row.tests.difference:+.3f}", p, told["published"]]


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
  """A row per epoch: the loss on fixed patches of training, validation and test cases."""
  parts = [column.removesuffix("_seg_loss") for column in COLUMNS]
  head = ["epoch", *(f"{name}, {part}" for name in curves for part in parts)]
  rows = [
    [str(epoch), *(f"{row[column]:.4f}" for row in of_epoch for column in COLUMNS)]
    for epoch, of_epoch in enumerate(zip(*curves.values(), strict=True), 1)
  ]
  return table(head, rows)
