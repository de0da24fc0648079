"""The systems that are compared: each is an experiment that exists, with the same patches."""

import importlib

import pytest

from benchmarks.recipes import SYSTEMS
from experiments import pancreas

DEMO = pancreas.get_config("phantom")


@pytest.mark.parametrize("key", SYSTEMS)
def test_each_sees_as_many_patches_of_one_size(key):
  file, variant = SYSTEMS[key].experiment.split(".py:")
  config = importlib.import_module(f"experiments.{file}").get_config(variant)
  flags = [flag.removeprefix("--config.").split("=") for flag in SYSTEMS[key].flags]
  config.update_from_flattened_dict(
    {name: int(value) if value.isdigit() else value for name, value in flags}
  )
  trainings = 3 * (1 + config.stages.inner_folds) if config.stages.count > 1 else 1
  steps = trainings * config.train.epochs * config.train.steps_per_epoch
  assert steps == pytest.approx(DEMO.train.epochs * DEMO.train.steps_per_epoch, abs=1)
  assert config.train.batch_size == DEMO.train.batch_size
  assert config.data.patch == DEMO.data.patch
