import dataclasses
import math

import pytest

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import compare_scores, list_differences
from attn_unet_jax.evaluation.comparison_text import render_csv, render_markdown
from attn_unet_jax.runtime.errors import UserError

DSC = {"a": 0.80, "b": 0.70, "c": 0.90, "d": 0.60, "e": 0.75}


def run(name, dsc, references=None, **config):
  rows = {
    case: {"dsc": value, "recall": 1.0, "reference_volume_ml": (references or {}).get(case, 50.0)}
    for case, value in dsc.items()
  }
  return ScoredRun(name, {"seed": 0, **config}, {"pancreas": rows})


def better(*cases, by=0.01):
  """DSC of the cases, raised by by, 2 by, ... so that no two differences are equal."""
  return {case: DSC[case] + by * (k + 1) for k, case in enumerate(cases)}


def test_means_and_sds_are_of_each_runs_own_cases():
  table = compare_scores([run("x", DSC), run("y", {"a": 0.5, "b": math.nan})], ["dsc", "recall"])
  x, y = table.rows
  assert x.spread["dsc"] == pytest.approx((0.75, math.sqrt(0.05 / 4), 5))
  assert y.spread["dsc"][0] == 0.5
  assert math.isnan(y.spread["dsc"][1])
  assert y.spread["dsc"][2] == 1
  assert x.spread["recall"] == (1, 0, 5)


def test_every_run_is_tested_against_the_first():
  runs = [run("x", DSC), run("y", better(*"abcde")), run("z", better(*"abcde", by=-0.02))]
  first, second, third = compare_scores(runs, ["dsc"]).rows
  assert first.tests is None
  assert (second.tests.n, second.tests.difference) == (5, pytest.approx(0.03))
  assert second.tests.p_wilcoxon == pytest.approx(2 / 32)
  assert third.tests.difference == pytest.approx(-0.06)
  assert second.p_holm == pytest.approx(4 / 32)  # two runs are tested


def test_cases_of_one_run_alone_are_said_and_not_tested():
  table = compare_scores([run("x", DSC), run("y", {**better(*"abc"), "f": 0.1})], ["dsc"])
  assert table.rows[1].tests.n == 3
  assert len(table.notes) == 1
  assert "x and y share 3 cases, 3 are scored in only one" in table.notes[0]


def test_no_case_in_common_is_no_test():
  table = compare_scores([run("x", DSC), run("y", {"f": 0.5, "g": 0.4})], ["dsc"])
  assert table.rows[1].tests.n == 0
  assert math.isnan(table.rows[1].tests.p_wilcoxon)
  assert "share 0 cases" in table.notes[0]
  assert "| - | 0 | - | - | - |" in render_markdown(table)


def test_the_same_name_with_another_reference_is_another_case():
  table = compare_scores([run("x", DSC), run("y", better(*"abcde"), {"b": 51.0})], ["dsc"])
  assert table.rows[1].tests.n == 4
  assert "different references for 1 cases (b)" in table.notes[0]


def test_undefined_scores_are_said_and_not_tested():
  table = compare_scores([run("x", DSC), run("y", {**better(*"abcde"), "c": math.nan})], ["dsc"])
  assert table.rows[1].tests.n == 4
  assert "undefined in 1 shared cases" in table.notes[0]


def test_a_mean_stands_with_its_n_and_missed_cases_are_told():
  """A run that misses half of the organs, and is precise in the others."""
  half = run("x", DSC)
  for case, row in half.scores["pancreas"].items():
    missed = case in "ab"
    row |= {"precision": math.nan if missed else 0.9, "volume_ml": 0.0 if missed else 40.0}
  whole = run("y", DSC)
  for row in whole.scores["pancreas"].values():
    row |= {"precision": 0.8, "volume_ml": 40.0}
  table = compare_scores([half, whole], ["precision"])
  first, second = render_markdown(table).splitlines()[2:4]
  assert first.startswith("| x | 0.900 ± 0.000 (3 of 5) |")
  assert second.startswith("| y | 0.800 ± 0.000 (5 of 5) |")
  assert [n for n in table.notes if "pancreas: x missed 2 of 5 cases altogether" in n]
  assert not [n for n in table.notes if "y missed" in n]


@pytest.mark.parametrize(
  ("references", "rules", "told"),
  [({"a": 0.0}, ("reference", "one"), True), ({}, ("reference", "one"), False),
   ({"a": 0.0}, ("one", "one"), False)],
)  # fmt: skip
def test_other_rules_for_empty_masks_are_told_where_they_matter(references, rules, told):
  runs = [
    dataclasses.replace(run(name, DSC, references), empty_masks=rule)
    for name, rule in zip("xy", rules, strict=True)
  ]
  notes = compare_scores(runs, ["dsc"]).notes
  assert any("different rules for empty masks (x: reference, y: one)" in n for n in notes) == told


def test_only_keys_that_differ_are_columns():
  runs = [
    run("x", DSC, rate=1e-4, model="unet"),
    run("y", DSC, rate=3e-4, model="unet", new=1),
    ScoredRun("other program", {}, run("z", DSC).scores),
  ]
  assert list_differences(runs) == {
    "x": {"rate": 1e-4, "new": None},
    "y": {"rate": 3e-4, "new": 1},
    "other program": {"rate": None, "new": None},
  }
  head, _, *rows = render_markdown(compare_scores(runs, ["dsc"])).splitlines()
  assert head == "| run | rate | new | dsc | Δ dsc | n | p Wilcoxon | p Holm | p t |"
  assert rows[0] == "| x | 0.0001 | - | 0.750 ± 0.112 (5 of 5) | - | - | - | - | - |"
  assert rows[1] == "| y | 0.0003 | 1 | 0.750 ± 0.112 (5 of 5) | +0.000 | 5 | - | - | - |"


def test_classes_have_rows_of_their_own():
  two = {name: run("x", DSC).scores["pancreas"] for name in ("pancreas", "liver")}
  table = compare_scores([ScoredRun("x", {}, two), run("y", DSC)], ["dsc"])
  assert [(row.run, row.name) for row in table.rows] == [("x", "pancreas"), ("y", "pancreas")]
  table = compare_scores([ScoredRun("x", {}, two), ScoredRun("y", {}, two)], ["dsc"])
  assert [row.name for row in table.rows] == ["pancreas", "pancreas", "liver", "liver"]
  assert render_markdown(table).splitlines()[0].startswith("| run | class | dsc |")


def test_csv_has_full_precision():
  table = compare_scores([run("x", DSC), run("y", better(*"abcde"))], ["dsc"])
  head, first, second = (line.split(",") for line in render_csv(table).splitlines())
  assert head[:5] == ["run", "class", "dsc", "dsc_sd", "dsc_n"]
  assert float(second[2]) == table.rows[1].spread["dsc"][0]
  assert float(second[head.index("p Wilcoxon")]) == table.rows[1].tests.p_wilcoxon
  assert first[head.index("p t")] == ""


@pytest.mark.parametrize(
  ("second", "metrics", "words"),
  [
    (run("y", DSC), ["hd95"], "x has no hd95; its scores are dsc, recall"),
    (ScoredRun("y", {}, {"liver": {"a": {"dsc": 1.0}}}), ["dsc"], "no class in common"),
  ],
)
def test_what_cannot_be_compared_is_refused(second, metrics, words):
  with pytest.raises(UserError, match=words):
    compare_scores([run("x", DSC), second], metrics)
