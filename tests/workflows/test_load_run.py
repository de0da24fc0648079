"""What tells one checkpoint from another, and what a run is opened with."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.workflows import load_run as module
from attn_unet_jax.workflows.load_run import BestCheckpoint, digest_checkpoint
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.open_run import open_run_or_stages
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.steps_record import write_record
from tests.configs import with_keys


def test_a_checkpoint_is_told_by_its_values_and_by_what_a_prediction_reads(config):
  weights = {"params": {"a": jnp.arange(4.0), "b": jnp.ones((2, 3))}}
  found = BestCheckpoint(config, ("pancreas",), None, weights, 7)
  own = digest_checkpoint(found)
  same = {"params": {"b": np.ones((2, 3), np.float32), "a": np.arange(4, dtype=np.float32)}}
  # The step, and how the run was trained, change no answer.
  kept = with_keys(config, {"train.keep": 9})
  assert digest_checkpoint(BestCheckpoint(kept, ("pancreas",), None, same, 8)) == own
  others = [
    {"variables": {"params": {"a": jnp.arange(4.0), "b": jnp.ones((2, 3)).at[1, 2].set(2)}}},
    {"variables": {"params": {"a": jnp.ones((2, 3)), "b": jnp.arange(4.0)}}},
    {"classes": ("liver",)},
    {"config": with_keys(config, {"data.spacing_mm": 7.0})},
    {"config": with_keys(config, {"inference.largest_component": True})},
    {"config": with_keys(config, {"inference.within_body": True})},
  ]
  digests = {digest_checkpoint(dataclasses.replace(found, **change)) for change in others}
  assert len(digests | {own}) == 1 + len(others)


@pytest.mark.parametrize(("is_built", "form"), [(True, "onednn"), (False, "auto")])
def test_a_run_that_was_trained_by_onednn_is_opened_without_it(
  config, tmp_path, monkeypatch, is_built, form
):
  open_run_folder(tmp_path, with_keys(config, {"model.conv": "onednn"}))
  monkeypatch.setattr(module, "has_onednn", lambda: is_built)
  monkeypatch.setattr(module, "has_progress", lambda _: True)
  state = SimpleNamespace(variables={}, step=7)
  monkeypatch.setattr(module, "restore_best", lambda *_: state)
  found = module.load_best(tmp_path)
  assert found.module.conv == form
  assert found.config.model.conv == "onednn"


@pytest.fixture
def chosen(config, tmp_path, monkeypatch):
  """A run's folder, with steps that were chosen for its checkpoint of step 7."""
  config = with_keys(config, {"inference.postprocess": "validation"})
  open_run_folder(tmp_path, config)
  steps = Postprocessing(largest=True, smallest_ml=2.0)
  write_record(tmp_path, ChosenSteps(steps, before=0.5, after=0.6, cases=5), 7)
  found = BestCheckpoint(config, ("pancreas",), build_run_network(config, 2), {}, 7)
  monkeypatch.setattr(module, "load_networks", lambda _: [found])
  return tmp_path, steps, found


def test_a_run_is_opened_with_the_steps_that_it_chose(chosen):
  workdir, steps, _ = chosen
  assert open_run_or_stages(workdir).postprocessing == steps


def test_steps_of_another_checkpoint_are_not_taken(chosen, monkeypatch):
  workdir, _, found = chosen
  monkeypatch.setattr(module, "load_networks", lambda _: [dataclasses.replace(found, step=8)])
  assert open_run_or_stages(workdir).postprocessing == UNCHANGED


def test_steps_of_a_network_that_is_trained_anew_are_removed(chosen):
  """Its checkpoints are gone: the next network may have a checkpoint of the same step."""
  workdir, _, found = chosen
  open_run_folder(workdir, found.config)
  assert open_run_or_stages(workdir).postprocessing == UNCHANGED
