import csv
import dataclasses
import io
import math
import re

import pytest

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import compare_scores, list_differences
from attn_unet_jax.evaluation.comparison_latex import escape_latex, render_latex
from attn_unet_jax.evaluation.comparison_text import explain_table, render_csv, render_markdown
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
  found = x.spread["dsc"]
  assert (found.mean, found.sd, found.n) == pytest.approx((0.75, math.sqrt(0.05 / 4), 5))
  assert (y.spread["dsc"].mean, y.spread["dsc"].n) == (0.5, 1)
  assert math.isnan(y.spread["dsc"].sd)
  assert (x.spread["recall"].mean, x.spread["recall"].sd) == (1, 0)


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
  assert first.startswith("| x | 0.900 ± 0.000 [0.900, 0.900] (3 of 5) |")
  assert second.startswith("| y | 0.800 ± 0.000 [0.800, 0.800] (5 of 5) |")
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


@pytest.mark.parametrize(
  ("name", "values", "told"),
  [
    ("tta", ("", "xy"), "different mirror images (x: none; y: xy); evaluate them alike, by --tta"),
    ("tta_scales", ("0.9, 1.1", ""), "different scaled copies (x: 0.9, 1.1; y: none); evaluate"),
    ("unprocessed", (True, False), "network left out (x: yes; y: no); evaluate them alike, by"),
    ("tta", ("xy", "xy"), ""),
  ],
)
def test_scores_that_were_made_in_another_way_are_told(name, values, told):
  runs = [
    dataclasses.replace(run(one, DSC), **{name: value})
    for one, value in zip("xy", values, strict=True)
  ]
  notes = compare_scores(runs, ["dsc"]).notes
  assert [told in note for note in notes] == ([True] if told else [])


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
  assert head == "| run | rate | new | dsc | rank | Δ dsc | n | p Wilcoxon | p Holm | p t |"
  mean = re.escape("0.750 ± 0.112 [") + r"0\.6\d\d, 0\.8\d\d" + re.escape("] (5 of 5) | 1 (33%)")
  assert re.fullmatch(rf"\| x \| 0.0001 \| - \| {mean} \| - \| - \| - \| - \| - \|", rows[0])
  assert re.fullmatch(rf"\| y \| 0.0003 \| 1 \| {mean} \| \+0.000 \| 5 \| - \| - \| - \|", rows[1])


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
  columns = ["run", "class", "dsc", "dsc_sd", "dsc_ci95_low", "dsc_ci95_high", "dsc_n"]
  assert head[: len(columns)] == columns
  found = table.rows[1].spread["dsc"]
  assert tuple(map(float, second[2:6])) == found[:4]
  assert float(second[head.index("p Wilcoxon")]) == table.rows[1].tests.p_wilcoxon
  assert first[head.index("p t")] == ""
  assert "rank" not in head  # of two runs the test says it


def test_csv_has_ranks_and_no_escapes_of_another_format():
  gains = {"x": 0, "y|&_": 0.02, "z": 0.01}
  runs = [run(name, better(*"abcde", by=by)) for name, by in gains.items()]
  head, *rows = csv.reader(io.StringIO(render_csv(compare_scores(runs, ["dsc"]))))
  at = head.index("rank")
  assert head[at + 1] == "first_share"
  assert [(row[0], row[at], row[at + 1]) for row in rows] == [
    ("x", "3", "0.0"),
    ("y|&_", "1", "1.0"),
    ("z", "2", "0.0"),
  ]


def test_ranks_are_over_the_cases_that_all_runs_scored():
  """Case a lacks in one run, has another reference in one, and e has no score in one."""
  runs = [
    run("x", DSC),
    run("y", better(*"bcde"), {"b": 51.0}),
    run("z", {**better(*"abcd", by=0.02), "e": math.nan}),
  ]
  table = compare_scores(runs, ["dsc"])
  assert table.ranks["pancreas"].cases == 2
  assert [row.rank for row in table.rows] == [3, 2, 1]
  assert "pancreas, 2 cases: 1.00 (1.00 to 1.00)" in explain_table(table)
  assert any("ranks are over 2 of 5 cases; in the other 3 a run" in note for note in table.notes)
  assert "| 1 (100%) |" in render_markdown(table).splitlines()[4]
  for other in (["volume_ml"], ["recall"]):
    for one in runs:
      for row in one.scores["pancreas"].values():
        row["volume_ml"] = 40.0
    assert bool(compare_scores(runs, other).ranks) == (other == ["recall"])
  assert compare_scores([runs[0], *[run(n, {"k": 1.0}) for n in "yz"]], ["dsc"]).ranks == {}


def test_a_score_that_an_earlier_version_did_not_write_is_left_out_and_told():
  new = run("new", DSC)
  for row in new.scores["pancreas"].values():
    row["hd95_mm"] = 4.0
  table = compare_scores([run("old", DSC), new], ["hd95_mm", "dsc"])
  assert table.metrics == ["dsc"]
  assert table.notes == [
    "hd95_mm is left out, for old lacks it; evaluate again to compare it",
    "dsc is tested instead of hd95_mm",
  ]
  assert compare_scores([run("old", DSC), new], ["dsc", "hd95_mm"]).notes == table.notes[:1]
  for metrics, missing in ((["hd95_mm"], "hd95_mm"), (["dsc", "ds"], "ds")):
    with pytest.raises(UserError, match=f"old has no {missing};"):
      compare_scores([run("old", DSC), new], metrics)


def test_latex_is_a_table_of_the_same_cells():
  runs = [run("runs/a_1", DSC), run("b&c", better(*"abcde"))]
  table = compare_scores(runs, ["dsc"])
  text = render_latex(table, runs, ["--output=x_1.tex"], "50 % of {it}", "A note.")
  lines = text.splitlines()
  assert lines[1:3] == ["%   python -m attn_unet_jax.compare \\", "%     --output=x_1.tex"]
  assert r"\caption{50 \% of \{it\}. A note. Mean $\pm$ sd over" in text
  body = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
  assert body[0].startswith(r"run & dsc & $\Delta$ dsc & n &")
  assert body[1] == r"\midrule"
  assert [line.split(" & ")[0] for line in body[2:]] == [r"runs/a\_1", r"b\&c"]
  for line in (body[0], *body[2:]):
    assert line.endswith(" \\\\")
    assert line.replace(r"\&", "").count("&") == 6
  assert r"\begin{tabular}{lllllll}" in lines
  # Every brace that opens closes again, and no sign of another format is left.
  bare = re.sub(r"\\[\\{}&%_#$]", "", "\n".join(lines[3:]))
  assert bare.count("{") == bare.count("}")
  assert not re.search("[±Δ<>_%]", bare)


def test_latex_escapes_what_it_reads_as_commands():
  assert escape_latex("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"
  assert escape_latex("$1 < #2\nx") == r"\$1 $<$ \#2 x"


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
