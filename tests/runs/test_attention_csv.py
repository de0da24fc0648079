import math

import pytest

from attn_unet_jax.runs.attention_csv import GateLog, average_runs, read_gate_rows
from attn_unet_jax.runtime.errors import UserError

MEANS = {"organ": 0.5, "shell": 0.25, "elsewhere": math.nan}


def test_a_run_that_goes_on_keeps_the_epochs_of_its_checkpoint(tmp_path):
  path = tmp_path / "attention.csv"
  GateLog(tmp_path, 0).write_epoch(1, {})
  assert not path.exists()
  log = GateLog(tmp_path, 0)
  for epoch in (1, 2, 3):
    log.write_epoch(epoch, {"level2/0": MEANS})
  log = GateLog(tmp_path, 1)
  log.write_epoch(2, {"level2/0": {**MEANS, "organ": 0.75}})
  found = [(epoch, gate, means["organ"]) for epoch, gate, means in read_gate_rows(path)]
  assert found == [(1, "level2/0", 0.5), (2, "level2/0", 0.75)]
  assert math.isnan(read_gate_rows(path)[0][2]["elsewhere"])
  path.write_text(path.read_text().replace("0.75", "x"))
  with pytest.raises(UserError, match=r"attention\.csv: not as the run wrote it"):
    GateLog(tmp_path, 2)


def test_the_mean_of_runs_is_of_those_that_have_the_epoch_and_the_place():
  one, other = (1, "a", MEANS), (1, "a", {"organ": 1.0, "shell": 0.25, "elsewhere": 0.125})
  (first, second) = average_runs([[one, (2, "a", MEANS)], [other]])
  assert first == (1, "a", {"organ": 0.75, "shell": 0.25, "elsewhere": 0.125})
  assert second[:2] == (2, "a")
  assert math.isnan(second[2]["elsewhere"])
