import csv
import json

import numpy as np
import pytest

from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.evaluation.gate_places import write_gate_means
from attn_unet_jax.runs.attention_csv import GateLog
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import report_run as workflow
from attn_unet_jax.workflows.report_run import (
  choose_roles,
  rank_cases,
  report_after_training,
  report_run,
)
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct, drawn_label

NAMES = "abcd"


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """The folder of a run that was trained, tested and scored, and its data."""
  data, workdir = tmp_path / "data", tmp_path / "run"
  for seed, name in enumerate(NAMES):
    write_nifti(data / "imagesTr" / f"{name}.nii", drawn_ct(seed))
    write_nifti(data / "labelsTr" / f"{name}.nii", drawn_label())
    moved = Volume(np.roll(drawn_label().array, seed, 0), drawn_label().affine)
    write_nifti(workdir / "predictions" / f"{name}.nii.gz", moved)
  config = with_keys(config, {"data.dataset": "", "data.folder": str(data)})
  (workdir / "config.json").write_text(to_json(config))
  fold = {"training": ["a"], "validation": ["a"], "test": [*NAMES]}
  (workdir / "folds.json").write_text(json.dumps({"name": "own", "folds": [fold]}))
  (workdir / "run.json").write_text(
    json.dumps({"exit": "done", "total_wall_seconds": 75.0, "devices": ["gpu: NVIDIA H200"] * 2})
  )
  (workdir / "evaluation").mkdir()
  with (workdir / "evaluation" / "cases.csv").open("w") as file:
    writer = csv.writer(file)
    writer.writerow(["case", "class", "dsc"])
    writer.writerows([name, "pancreas", 1 - seed / 6] for seed, name in enumerate(NAMES))
  # Building the network for its size takes a second.
  monkeypatch.setattr("attn_unet_jax.workflows.run_facts.count_parameters", lambda _: 1234567)
  return workdir, data


def test_a_page_shows_the_run_and_its_cases(run):
  workdir, _ = run
  path = report_run(workdir)
  text = path.read_text()
  assert path == workdir / "report.html"
  for shown in (
    "It is trained and tested.",
    "1,234,567",
    "1m15s",
    "2 x NVIDIA H200",
    "1 training, 1 validation, 4 test",
  ):
    assert shown in text
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  assert [(one["id"], one["role"]) for one in data["shown"]] == [
    ("d", "worst"),
    ("c", "median"),
    ("b", "second best"),
    ("a", "best"),
  ]


def test_the_score_beside_a_picture_is_called_a_mean_where_it_is_one(run):
  workdir, _ = run

  def read_scores():
    (line,) = [one for one in report_run(workdir).read_text().splitlines() if 'id="data"' in one]
    data = json.loads(line.partition(">")[2].removesuffix("</script>"))
    return [one["score"] for one in data["shown"]]

  assert read_scores()[0] == "DSC 0.500"
  with (workdir / "evaluation" / "cases.csv").open("a") as file:
    csv.writer(file).writerows([name, "liver", 0.9] for name in NAMES)
  assert read_scores()[0] == "mean DSC 0.700"


def test_a_page_says_which_classes_have_no_truth(run):
  workdir, _ = run
  config = load_config(workdir / "config.json")
  labels = {"data.labels": "pancreas=1,liver=none"}
  (workdir / "config.json").write_text(to_json(with_keys(config, labels)))
  text = report_run(workdir).read_text()
  assert "A network that outlines pancreas, liver in CT scans." in text
  assert "<strong>Without a truth: liver. " in text
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  assert [(one["name"], one["known"]) for one in data["classes"]] == [
    ("pancreas", True),
    ("liver", False),
  ]


def test_a_page_says_what_is_missing(run):
  workdir, data = run
  (workdir / "predictions" / "b.nii.gz").unlink()
  assert "There is no picture of b: " in report_run(workdir).read_text()
  for folder in ("imagesTr", "labelsTr"):
    (data / folder / "c.nii").unlink()
  text = report_run(workdir).read_text()
  assert "There is no picture of c: it is no longer in the data" in text
  assert "There are no pictures" not in text
  (data / "imagesTr").rename(data / "elsewhere")
  assert "There are no pictures, since the data is not there: " in report_run(workdir).read_text()
  for name in ("run.json", "folds.json"):
    (workdir / name).unlink()
  (workdir / "evaluation" / "cases.csv").unlink()
  text = report_run(workdir).read_text()
  assert "it was not trained here" in text
  assert "There are no pictures." in text


def test_a_table_of_scores_that_is_none_is_refused_by_name(run):
  workdir, _ = run
  (workdir / "evaluation" / "cases.csv").write_text("case,dsc\na,0.5\n")
  with pytest.raises(UserError, match=r"cases\.csv: not a table of scores"):
    report_run(workdir)
  with pytest.raises(UserError, match=r"is its folder a run"):
    report_run(workdir / "predictions")


def test_a_report_that_fails_is_said_and_ends_no_run(run, monkeypatch, capsys):
  workdir, _ = run
  monkeypatch.setattr(workflow, "write_document", lambda _: 1 / 0)
  report_after_training(workdir)
  said = capsys.readouterr().out
  assert said.startswith("no report (ZeroDivisionError: division by zero); the run is complete.")
  assert not (workdir / "report.html").exists()


def test_ranks_and_roles():
  rows = [{"case": case, "dsc": dsc} for case, dsc in (("a", "0.5"), ("b", "nan"), ("c", "0.25"))]
  rows.append({"case": "a", "dsc": "1"})
  assert [case for case, _ in rank_cases(rows)] == ["c", "a", "b"]
  assert rank_cases(rows)[1] == ("a", 0.75)
  assert choose_roles(1) == {0: "worst"}
  assert choose_roles(9) == {
    0: "worst",
    1: "second worst",
    4: "median",
    5: "next to the median",
    7: "second best",
    8: "best",
  }


def test_a_page_shows_where_the_gates_look_and_what_the_run_doubts(run, monkeypatch):
  workdir, _ = run
  means = {"level2/0": {"organ": 0.75, "shell": 0.5, "elsewhere": 0.25}}
  write_gate_means(workdir / "evaluation" / "attention.csv", {"a": means, "b": means})
  GateLog(workdir, 0).write_epoch(1, means)
  flat = Volume(np.full(drawn_ct().shape, 0.5, np.float32), drawn_ct().affine)
  write_nifti(workdir / "uncertainty" / "d.nii.gz", flat)
  monkeypatch.setattr(workflow, "open_attention", lambda _: lambda *_: {"level2/0": flat})
  text = report_run(workdir, attention=True).read_text()
  assert '<th scope="row">level2/0</th><td>0.750 \u00b1 0.000</td>' in text
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  assert data["gates"][0]["curves"][0]["points"] == [[1, 0.75]]
  worst, *others = data["shown"]
  assert list(worst["maps"]) == ["attention level2/0", "uncertainty"]
  assert worst["maps"]["attention level2/0"]["about"].startswith(
    "mean coefficient in the organ 0.5"
  )
  assert "uncertainty" not in others[0]["maps"]


def test_each_case_of_all_folds_is_looked_at_by_the_fold_that_tests_it(run, monkeypatch):
  workdir, _ = run
  config = load_config(workdir / "config.json")
  (workdir / "config.json").write_text(to_json(with_keys(config, {"data.fold": "all"})))
  tested = {"fold_0": "ab", "fold_1": "cd"}
  folds = [{"training": ["a"], "validation": ["a"], "test": [*names]} for names in tested.values()]
  (workdir / "folds.json").write_text(json.dumps({"name": "own", "folds": folds}))
  for number, (fold, names) in enumerate(tested.items()):
    for name in names:
      path = workdir / fold / "predictions" / f"{name}.nii.gz"
      path.parent.mkdir(parents=True, exist_ok=True)
      (workdir / "predictions" / path.name).rename(path)
    means = {"level2/0": {"organ": 0.25 + number / 2, "shell": 0.5, "elsewhere": 0.0}}
    GateLog(workdir / fold, 0).write_epoch(1, means)
  opened, looked = [], {}

  def open_attention(folder):
    opened.append(folder.name)

    def measure(image, box, case):
      looked[case] = folder.name
      return {"level2/0": Volume(np.full(image.shape, 0.5, np.float32), image.affine)}

    return measure

  monkeypatch.setattr(workflow, "open_attention", open_attention)
  text = report_run(workdir, attention=True).read_text()
  assert looked == {name: fold for fold, names in tested.items() for name in names}
  assert sorted(opened) == [*tested]  # each once
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  assert all("attention level2/0" in one["maps"] for one in data["shown"])
  assert data["gates"][0]["curves"][0]["points"] == [[1, 0.5]]
  assert "validation loss, mean over the folds</h3>" in text
