"""What tells one checkpoint from another."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from attn_unet_jax.workflows.load_run import BestCheckpoint, digest_checkpoint
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
  ]
  digests = {digest_checkpoint(dataclasses.replace(found, **change)) for change in others}
  assert len(digests | {own}) == 1 + len(others)
