"""What a benchmark reads from the folders of its runs."""

import pytest

from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runs.metrics_csv import COLUMNS
from attn_unet_jax.runtime.errors import UserError
from benchmarks import runs
from experiments import pancreas
from tests.configs import small_config, with_keys


def _run(folder, seconds, epochs_steps=10):
  folder.mkdir(parents=True)
  config = small_config(**{"train.steps_per_epoch": epochs_steps})
  (folder / "config.json").write_text(to_json(config))
  rows = [
    dict.fromkeys(COLUMNS, "") | {"epoch": e, "train_seconds": s} for e, s in enumerate(seconds, 1)
  ]
  lines = [COLUMNS, *(map(str, row.values()) for row in rows)]
  (folder / "metrics.csv").write_text("".join(",".join(line) + "\n" for line in lines))


def test_seconds_and_parameters_of_a_run_and_of_one_in_stages(tmp_path):
  alone, stages = tmp_path / "alone", tmp_path / "stages"
  _run(alone, [90, 20, 30, 24])  # the first epoch compiles
  assert runs.step_seconds(alone) == 2.4
  for name in ("stage1", "stage2_interior", "stage2_boundary", "inner0/stage1"):
    _run(stages / name, [20])
  (stages / "config.json").write_text((alone / "config.json").read_text())
  assert runs.step_seconds(stages) is None
  assert runs.parameters(stages) == 3 * runs.parameters(alone) > 0


@pytest.mark.parametrize(("exit", "done"), [("done", True), ("Interrupted: 15", False)])
def test_a_run_is_done_when_its_record_says_so(tmp_path, exit, done):
  assert not runs.is_done(tmp_path)
  (tmp_path / "run.json").write_text(f'{{"exit": "{exit}"}}')
  assert runs.is_done(tmp_path) == done


def test_what_is_asked_for_is_the_experiment_with_its_flags():
  experiment = "--config=experiments/pancreas.py:phantom"
  patch = "--config.data.patch=(32, 32, 32)"
  config = runs.build_asked_config(experiment, "--workdir=a", "--config.train.epochs=3", patch)
  plain = resolve_draft(pancreas.get_config("phantom"))
  assert config == with_keys(plain, {"train.epochs": 3, "data.patch": (32, 32, 32)})


def test_what_is_done_is_not_trained_again_unless_it_was_another_config(tmp_path, monkeypatch):
  started = []
  monkeypatch.setattr(runs, "command", lambda *arguments: started.append(arguments))
  flags = ("--config.train.epochs=3",)
  runs.train("pancreas.py:phantom", tmp_path / "a", *flags)
  assert started == [
    ("main", "--config=experiments/pancreas.py:phantom", f"--workdir={tmp_path / 'a'}", *flags)
  ]
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "run.json").write_text('{"exit": "done"}')
  config = runs.build_asked_config("--config=experiments/pancreas.py:phantom", *flags)
  (tmp_path / "a" / "config.json").write_text(to_json(config))
  runs.train("pancreas.py:phantom", tmp_path / "a", *flags)
  assert len(started) == 1
  with pytest.raises(UserError, match=r"train\.epochs: 3 there, 8 now"):
    runs.train("pancreas.py:phantom", tmp_path / "a")


def test_a_command_that_fails_ends_the_benchmark_with_its_status(capfd):
  with pytest.raises(SystemExit) as ended:
    runs.command("info", "--config=experiments/none.py")
  assert ended.value.code != 0
