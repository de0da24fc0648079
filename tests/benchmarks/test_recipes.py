"""The systems that are compared: each is an experiment that exists, with as much to see."""

import pytest

from attn_unet_jax.config.resolve import resolve_draft
from benchmarks.recipes import SYSTEMS
from benchmarks.runs import build_asked_config
from experiments import dense_vnet, pancreas

DEMO = resolve_draft(pancreas.get_config("phantom"))


@pytest.mark.parametrize("key", SYSTEMS)
def test_each_training_has_as_many_patches(key):
  system = SYSTEMS[key]
  config = build_asked_config(f"--config=experiments/{system.experiment}", *system.flags)
  for name in ("epochs", "steps_per_epoch", "batch_size"):
    assert getattr(config.train, name) == getattr(DEMO.train, name)
  if config.stages.count == 1:
    assert config.data.patch == DEMO.data.patch
  else:
    trainings = 3 * (1 + config.stages.inner_folds)
    assert (trainings, config.data.patch) == (9, (32, 32, 32))
    assert "each of nine trainings on as many patches, of 32^3" in SYSTEMS[key].departs


def test_every_departure_of_the_dense_networks_is_told():
  config = resolve_draft(dense_vnet.get_config("phantom"))
  assert (config.model.prior_size, config.model.channels_kept) == (0, 1.0)
  assert config.data.foreground_fraction == 1.0
  for part in ("no prior", "no channel dropout", "every patch centred"):
    assert part in SYSTEMS["dense_vnet"].departs
