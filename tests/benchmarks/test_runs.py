"""What a benchmark reads from the folders of its runs."""

import pytest

from attn_unet_jax import config as config_keys
from benchmarks import runs
from tests.conftest import small_config


def _run(folder, seconds, epochs_steps=10):
  folder.mkdir(parents=True)
  config = small_config()
  config.train.steps_per_epoch = epochs_steps
  (folder / "config.json").write_text(config_keys.to_json(config))
  rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(seconds, 1))
  (folder / "metrics.csv").write_text("epoch,train_seconds\n" + rows)


def test_seconds_and_parameters_of_a_run_and_of_one_in_stages(tmp_path):
  alone, stages = tmp_path / "alone", tmp_path / "stages"
  _run(alone, [90, 20, 30])  # the first epoch compiles
  assert runs.training_seconds(alone) == (3.0, 140.0)
  for name in ("stage1", "stage2_interior", "stage2_boundary", "inner0/stage1"):
    _run(stages / name, [20])
  assert runs.training_seconds(stages) == (2.0, 80.0)
  assert runs.parameters(stages) == 3 * runs.parameters(alone) > 0


@pytest.mark.parametrize(("exit", "done"), [("done", True), ("Interrupted: 15", False)])
def test_a_run_is_done_when_its_record_says_so(tmp_path, exit, done):
  assert not runs.is_done(tmp_path)
  (tmp_path / "run.json").write_text(f'{{"exit": "{exit}"}}')
  assert runs.is_done(tmp_path) == done
