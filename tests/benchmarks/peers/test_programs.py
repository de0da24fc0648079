"""Whole programs in turn, and what their tables say."""

import pytest

from benchmarks.peers import inputs, programs, tables
from benchmarks.peers.turns import FinishedProcess, ProcessFailedError


def test_programs_run_in_turn_and_one_that_fails_is_not_started_again(capsys):
  asked = []

  def make(name, seconds):
    def call():
      asked.append(name)
      if seconds is None:
        raise ProcessFailedError("status 1: no")
      return seconds[asked.count(name) - 1], 2.0

    return call

  calls = {"ours": make("ours", [2, 4, 3]), "a": make("a", None), "b": make("b", [6, 9, 12])}
  found = programs._run_in_turn(calls, 3)
  assert asked == ["ours", "a", "b", "ours", "b", "ours", "b"]
  assert found["a"] == {"error": "status 1: no"}
  assert found["b"]["times_ours"] == 3
  assert found["ours"]["peak_gib"] == 2


def test_the_step_that_a_training_printed():
  assert programs.read_step(FinishedProcess(9, 1, "epoch 1\n@step 1.25\n")) == 1.25
  with pytest.raises(ProcessFailedError, match="no time"):
    programs.read_step(FinishedProcess(9, 1, "epoch 1\n"))


def test_what_is_drawn_is_a_data_set_of_the_program(tmp_path, monkeypatch):
  monkeypatch.setattr(inputs, "_SIZE", (48, 48, 48))
  inputs.write_training_scans(tmp_path / "scans", 2)
  from attn_unet_jax.volumes.nifti import read_nifti

  for number in (0, 1):
    label = read_nifti(tmp_path / f"scans/labelsTr/scan{number}.nii.gz")
    # A ball of 20 voxels: 4/3 pi r^3.
    assert label.array.sum() == pytest.approx(33510, rel=0.01)
  before = (tmp_path / "scans/imagesTr/scan0.nii.gz").stat().st_mtime_ns
  inputs.write_training_scans(tmp_path / "scans", 2)
  assert (tmp_path / "scans/imagesTr/scan0.nii.gz").stat().st_mtime_ns == before


def test_the_tables_say_who_failed():
  row = {"median_s": 1.5, "min_s": 1.25, "max_s": 2.0, "times_ours": 1.0, "peak_gib": 0.5}
  text = tables.write_tables(
    {
      "machine": {"cores": 2, "cpu": "X", "load_before": 0.1},
      "patch": 64,
      "took_s": {"inference": 290, "scan": 610},
      "inference": {"ours": row, "other": {"error": "status 1: no"}},
    }
  )
  assert "2 cores (X), load 0.1 before; patches of 64^3; 15 minutes in all." in text
  assert "| ours | 1.5 s | 1.25 to 2 s | 1.00 | 0.5 GiB |" in text
  assert "| other | none: status 1: no |" in text
  assert "training" not in text
