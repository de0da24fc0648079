"""Tables of results from made figures."""

import math

from attn_unet_jax.evaluation.comparison import ComparisonRow, ComparisonTable
from attn_unet_jax.evaluation.paired_tests import PairedTest
from attn_unet_jax.evaluation.summary import ScoreSummary
from benchmarks.tables import (
  COLUMNS,
  METRICS,
  ablation_table,
  curves_table,
  painter_table,
  papers_table,
  systems_table,
  three_rows_table,
)


def _of(mean, sd, n):
  return ScoreSummary(mean, sd, *[math.nan] * 5, n, 12 - n)


def test_rows_show_scores_and_the_test_against_the_first():
  spread = {"dsc": _of(0.8, 0.05, 12), "precision": _of(0.9, 0.1, 12), "recall": _of(0.7, 0.2, 12)}
  spread["assd_mm"] = _of(2.34, 1.06, 12)
  some = spread | {"precision": _of(0.5, 0.25, 11), "assd_mm": _of(math.nan, math.nan, 0)}
  rows = [
    ComparisonRow("a", "pancreas", 640, {}, spread, None, math.nan),
    ComparisonRow("b", "pancreas", 640, {}, some, PairedTest(12, -0.031, 0.0214, 0.01), 0.0428),
  ]
  told = {"parameters": 6473322, "feature_scale": 8.0, "published": "0.84", "departs": ""}
  told |= {"step_seconds": 0.456, "wall_seconds": 330.0}
  both = [{"name": "A", **told}, {"name": "B", **told, "step_seconds": None, "departs": "no prior"}]
  text = systems_table(both, ComparisonTable(METRICS, rows, ["a case is missing"]))
  cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
  assert cells[2] == ["A", "6,473,322", "8", "0.46", "6", "0.800 ± 0.050", "0.900 ± 0.100",
                      "0.700 ± 0.200", "2.3 ± 1.1", "-", "-"]  # fmt: skip
  assert cells[3][3] == "-"
  assert cells[3][6:] == ["0.500 ± 0.250 (11)", "0.700 ± 0.200", "-", "-0.031", "0.021 (0.043)"]
  assert "over 12 test cases" in text
  assert "difference to A over" in text
  assert text.endswith("\n\nNote: a case is missing.")
  assert "| B | 0.84 | no prior |" in papers_table(both)


def test_the_ablation_shows_each_seed_and_its_difference():
  scores = {"U-Net": (0.7, 0.8, 0.75), "Attention U-Net, two gates": (0.72, 0.78, 0.81)}
  rows = [
    {"name": name, "seed": seed, "parameters": 1234567, "dsc": values[seed]}
    for seed in range(3)
    for name, values in scores.items()
  ]
  lines = ablation_table(rows).splitlines()
  assert lines[2] == "| U-Net | 1,234,567 | 0.700 | 0.800 | 0.750 | 0.750 ± 0.050 |"
  # 0.02, -0.02, 0.06: mean 0.02, sd 0.04
  assert lines[4] == "| difference |  | +0.020 | -0.020 | +0.060 | +0.020 ± 0.040 |"


def test_curves_have_a_row_for_each_epoch():
  flat = [dict.fromkeys(COLUMNS, 0.9)] * 2
  falling = [dict.fromkeys(COLUMNS, value) for value in (0.8, 0.4)]
  lines = curves_table({"SGD": flat, "Adam": falling}).splitlines()
  assert lines[0].startswith("| epoch | SGD, train | SGD, validation | SGD, test | Adam, train |")
  assert lines[3] == "| 1 | 0.9000 | 0.9000 | 0.9000 | 0.4000 | 0.4000 | 0.4000 |"


def test_the_three_rows_show_the_scores_of_each_training():
  score = {"mean": 0.5, "sd": 0.25, "n": 12}
  row = {"cases": 12, "checkpoint_step": 320, **dict.fromkeys(METRICS, score)}
  row["assd_mm"] = {"mean": 3.25, "sd": 1.0, "n": 11}
  lines = three_rows_table({"before": row, "after": row | {"checkpoint_step": 200}}).splitlines()
  shown = "0.500 ± 0.250 | 0.500 ± 0.250 | 0.500 ± 0.250 | 3.2 ± 1.0 (11)"
  assert lines[2:] == [f"| before | 320 | {shown} |", f"| after | 200 | {shown} |"]


def test_the_painter_s_variants_are_averaged_over_seeds():
  rows = [{"name": "a", "seed": 0, "dsc": 0.5}, {"name": "b", "seed": 0, "dsc": 0.25}]
  rows.append({"name": "a", "seed": 1, "dsc": 0.6})
  lines = painter_table(rows).splitlines()
  assert lines[2:] == ["| a | 0.550 | 0.500, 0.600 |", "| b | 0.250 | 0.250 |"]
