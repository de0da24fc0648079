"""Summaries of scores against values computed by hand."""

import json
import math

import numpy as np
import pytest

from attn_unet_jax.evaluation import summary
from attn_unet_jax.evaluation.overlap import score_case
from attn_unet_jax.evaluation.summary_text import describe_class

NAN = math.nan


def _rows(*pairs):
  """Scores of cases of one voxel each: whether the prediction, the reference has the class."""
  maps = ((np.full((1, 1, 1), value, np.uint8) for value in pair) for pair in pairs)
  return [score_case(*pair, {"pancreas": 1}, 1.0) for pair in maps]


def test_missed_cases_and_false_alarms_are_counted():
  rows = _rows((1, 1), (0, 1), (0, 1), (1, 0), (0, 0), (0, 0), (0, 0))
  assert summary.count_cases(rows) == {"pancreas": (7, 3, 2, 1)}
  assert summary.count_cases([]) == {}


def test_a_score_by_hand():
  found = summary.summarise_score([0.5, NAN, 0.9, 0.6, 0.8])
  assert (found.mean, found.n, found.undefined) == (pytest.approx(0.7), 4, 1)
  assert found.sd == pytest.approx(math.sqrt(0.1 / 3))
  assert found.median == pytest.approx(0.7)
  assert (found.quartile_1, found.quartile_3) == pytest.approx((0.575, 0.825))
  assert 0.5 < found.ci95_low < 0.6 < 0.8 < found.ci95_high < 0.9
  json.dumps(found._asdict())  # plain numbers, not NumPy's


def test_too_few_cases_have_no_spread():
  nothing = summary.ScoreSummary(*[NAN] * 7, 0, 1)
  assert summary.summarise_score([NAN]) == pytest.approx(nothing, nan_ok=True)
  one = summary.ScoreSummary(0.5, NAN, NAN, NAN, 0.5, 0.5, 0.5, 1, 1)
  assert summary.summarise_score([NAN, 0.5]) == pytest.approx(one, nan_ok=True)
  with pytest.raises(ValueError, match="no cases"):
    summary.summarise_scores([])


def test_scores_are_summarised_class_by_class():
  found = summary.summarise_scores(_rows((1, 1), (0, 1), (0, 0)))["pancreas"]
  assert (found["dsc"].mean, found["dsc"].n, found["dsc"].undefined) == (0.5, 2, 1)
  assert found["precision"].n == 1


def test_the_worst_cases_are_those_of_the_lowest_dsc():
  """By name among equals; a case without a DSC is none of them."""
  scores = {"e": 0.9, "d": 0.4, "c": 0.7, "b": 0.4, "a": NAN}
  worst = summary.list_worst_cases({case: {"pancreas": {"dsc": s}} for case, s in scores.items()})
  assert worst == {"pancreas": [("b", 0.4), ("d", 0.4), ("c", 0.7)]}
  assert summary.list_worst_cases({}) == {}


def test_a_class_is_described_in_a_line_and_a_table():
  rows = {
    "a": {"x": {"dsc": 0.5, "nsd_2mm": NAN, "iou": 0.4}},
    "b": {"x": {"dsc": 0.9, "nsd_2mm": NAN, "iou": 0.4}},
  }
  counts = summary.ClassCounts(cases=2, with_class=1, missed=0, false_alarms=1)
  summaries = summary.summarise_scores(list(rows.values()))["x"]
  lines = describe_class("x", summaries, counts, summary.list_worst_cases(rows)["x"])
  assert lines == [
    "x, 2 cases: missed in 0 of 1; 1 without it, false alarms in 1 of them; "
    "lowest dsc: a 0.500, b 0.900",
    "           mean ± sd      95 % interval   median (quartiles)      n",
    "  dsc      0.700 ± 0.283  0.500 to 0.900  0.700 (0.600 to 0.800)  2 of 2",
    "  nsd_2mm  undefined                                              0 of 2",
  ]
  alone = describe_class("x", summaries, counts._replace(cases=1), [summary.CaseScore("a", 0.5)])
  assert alone[0] == "x, 1 case: missed in 0 of 1"
