"""The command as a user runs it, on runs that wrote what runs write."""

import json

import numpy as np
import pytest

from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.evaluation.compared_runs import read_run
from attn_unet_jax.evaluation.overlap import score_case
from attn_unet_jax.evaluation.scoring import write_scores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.compare_runs import compare_runs
from tests.configs import small_config
from tests.conftest import run_command

CASES = 6


def write_run(folder, seed, rate):
  """A run's folder with the scores of masks that hit more and more as the seed grows."""
  config = small_config(**{"optimizer.learning_rate": rate})
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(to_json(config))
  command = ["--config=tests/small.py", f"--config.optimizer.learning_rate={rate}"]
  (folder / "run.json").write_text(json.dumps({"command": command}))
  rows = {}
  for case in range(CASES):
    reference = np.zeros((8, 8, 8), np.uint8)
    reference[:4, :4, : 2 + case] = 1
    prediction = reference.copy()
    prediction[: 4 - seed, 0, 0] = 0
    rows[f"case{case}"] = score_case(prediction, reference, {"pancreas": 1}, 1.0)
  write_scores(rows, folder / "evaluation", {"part": "test", "checkpoint_step": 40})
  return rows


def _read(folder):
  return read_run(folder, lambda path: flatten(load_config(path)))


@pytest.fixture
def runs(tmp_path):
  for name, seed, rate in (("a", 0, 1e-4), ("b", 3, 1e-3)):
    write_run(tmp_path / name, seed, rate)
  return tmp_path


def test_what_a_run_writes_is_read(runs):
  run = _read(runs / "a")
  assert run.config["optimizer.learning_rate"] == 1e-4
  assert run.step == 40
  assert run.empty_masks == "reference"
  assert sorted(run.scores["pancreas"]) == [f"case{k}" for k in range(CASES)]
  assert run.scores["pancreas"]["case0"]["dsc"] == pytest.approx(2 * 28 / (28 + 32), abs=1e-6)
  other = _read(runs / "a" / "evaluation")  # as evaluate --output writes it
  assert (other.config, other.scores) == ({}, run.scores)


@pytest.mark.parametrize(
  ("said", "found"),
  [
    ({"tta": "xy", "tta_scales": [0.9, 1.1]}, ("xy", "0.9, 1.1", False)),
    ({"no_postprocess": True}, ("", "", True)),
  ],
)
def test_how_a_run_was_scored_is_read(said, found, runs):
  path = runs / "a" / "evaluation" / "summary.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | said))
  for folder in (runs / "a", runs / "a" / "evaluation"):
    run = _read(folder)
    assert (run.tta, run.tta_scales, run.unprocessed) == found


def test_the_table_is_printed_and_written(runs):
  page = runs / "docs" / "results.md"
  flags = (f"--workdirs={runs}/a,{runs}/b/", "--metrics=dsc", "--title=Two runs", "--note=Made up.")
  done = run_command("attn_unet_jax.compare", *flags, f"--output={page}")
  assert (done.returncode, done.stderr) == (0, "")
  head, _, first, second = done.stdout.splitlines()[:4]
  assert head.startswith("| run | optimizer.learning_rate | step | dsc | Δ dsc | n | p Wilcoxon |")
  assert first.startswith(f"| {runs}/a | 0.0001 | 40 | 0.9")
  # Six cases rise: 2 of 2^6 signings are as extreme.
  assert "| 6 | 0.0312 | 0.0312 |" in second
  text = page.read_text()
  assert text.startswith("# Two runs\n\nMade up.\n\n| run |")
  assert "--config.optimizer.learning_rate=0.001" in text
  assert "python -m attn_unet_jax.compare" in text


def test_a_table_for_a_paper_and_one_for_programs_are_written(runs, capsys):
  write_run(runs / "c", 1, 3e-4)
  workdirs = [f"{runs}/{name}" for name in "abc"]
  for ending, first in ((".tex", r"% Needs \usepackage{booktabs}"), (".csv", "run,optimizer.")):
    output = runs / f"results{ending}"
    compare_runs(workdirs, "test", ["dsc"], output, "Three runs", "")
    assert output.read_text().startswith(first)
    assert capsys.readouterr().out.endswith(f"table: {output}\n")
  assert r"\caption{Three runs. Mean" in (runs / "results.tex").read_text()


def test_a_terminal_that_knows_no_greek_ends_no_command(runs):
  """Nor a name that is no text; in files it is UTF-8, whatever the locale."""
  plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
  page = runs / "page.md"
  flags = (f"--workdirs={runs}/a,{runs}/b", "--title=no text: \udcff", f"--output={page}")
  done = run_command("attn_unet_jax.compare", *flags, env=plain)
  assert (done.returncode, done.stderr) == (0, "")
  assert r"| \u0394 dsc |" in done.stdout
  text = page.read_text(encoding="utf-8")
  assert text.startswith("# no text: \\udcff\n")
  assert "| Δ dsc |" in text


@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (lambda run: (run / "evaluation" / "cases.csv").unlink(), "evaluate --workdir="),
    (lambda run: (run / "evaluation" / "cases.csv").write_text("case,class,dsc\n"), "no case"),
    (lambda run: (run / "evaluation" / "cases.csv").write_text("a,b\n1,2\n"), "not a table"),
    (
      lambda run: (run / "evaluation" / "cases.csv").write_text("case,class,dsc\nx,p,y\n"),
      "not a table",
    ),
    (
      lambda run: (run / "evaluation" / "cases.csv").write_text("case,class,dsc\nx,p,inf\n"),
      r"not a table of scores \(a score of inf\)",
    ),
    (
      lambda run: (run / "evaluation" / "cases.csv").write_bytes(
        b"case,class,dsc\n" + bytes(2**18)
      ),
      "not a table",
    ),
    (lambda run: (run / "run.json").write_text("{"), "not readable as JSON"),
    (lambda run: (run / "run.json").write_text('{"command": 3}'), "command is 3, not a list"),
    (
      lambda run: (run / "run.json").write_text('{"command": [3]}'),
      r"command is \[3\], not a list",
    ),
    (lambda run: (run / "config.json").write_text("[]"), "not a config of this program"),
  ],
)
def test_runs_that_cannot_be_read_are_named(runs, harm, words):
  harm(runs / "b")
  with pytest.raises(UserError, match=words) as refused:
    _read(runs / "b")
  assert str(runs / "b") in str(refused.value)


@pytest.mark.parametrize(
  ("flags", "complaint"),
  [
    (["--workdirs={0}/a,{0}/c"], "c: no such folder"),
    (["--workdirs={0}/a,{0}/b/../a"], "name two runs or more, each once"),
    (["--workdirs={0}/a,{0}/b", "--output={0}/x.txt"], "must end in .md, .csv, .tex or .html"),
  ],
)
def test_wrong_input_is_one_line(runs, flags, complaint):
  done = run_command("attn_unet_jax.compare", *(flag.format(runs) for flag in flags))
  assert done.returncode == 2
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert complaint in done.stderr
