"""The systems that are compared: each is an experiment that exists, with as much to see."""

import math

import pytest

from benchmarks.recipes import SYSTEMS
from benchmarks.runs import asked
from experiments import dense_vnet, pancreas

DEMO = pancreas.get_config("phantom")


def _voxels(config):
  assert config.stages.patch in ((0, 0, 0), config.data.patch)
  steps = config.train.epochs * config.train.steps_per_epoch
  return steps * config.train.batch_size * math.prod(config.data.patch)


@pytest.mark.parametrize("key", SYSTEMS)
def test_each_sees_as_many_voxels(key):
  config = asked(f"--config=experiments/{SYSTEMS[key].experiment}", *SYSTEMS[key].flags)
  trainings = 3 * (1 + config.stages.inner_folds) if config.stages.count > 1 else 1
  assert trainings * _voxels(config) == _voxels(DEMO)
  if config.data.patch != DEMO.data.patch:
    assert "patches of 32^3" in SYSTEMS[key].departs  # the table says so
  else:
    assert config.train.batch_size == DEMO.train.batch_size


def test_every_departure_of_the_dense_networks_is_told():
  config = dense_vnet.get_config("phantom")
  assert (config.model.prior_size, config.model.channels_kept) == (0, 1.0)
  assert config.data.foreground_fraction == 1.0
  for part in ("no prior", "no channel dropout", "every patch centred"):
    assert part in SYSTEMS["dense_vnet"].departs
