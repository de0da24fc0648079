"""The first patches of a training, real and painted ones, as the network sees them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.patches.batch import make_plan, make_training_batch
from attn_unet_jax.patches.schedule import sample_batch
from attn_unet_jax.training.inputs import open_inputs
from attn_unet_jax.workflows.network import build_run_network


class Patch(NamedTuple):
  """A patch: whether it is painted, its normalised image and its class indices, [X, Y, Z]."""

  is_painted: bool
  image: np.ndarray
  label: np.ndarray


def make_first_patches(config: RunConfig, steps: int) -> Iterator[Patch]:
  """Yields the augmented patches of the first steps of a run with two data sets."""
  fold = open_fold(config.data)
  module = build_run_network(config, len(fold.mapping.classes) + 1)
  make_batch = jax.jit(lambda feed, step: make_training_batch(config, feed, step))
  with tempfile.TemporaryDirectory() as folder:
    inputs = open_inputs(config, module, fold.load, Path(folder))
    with inputs.source.feeds(range(1)) as feeds:
      held = next(feeds)
    plan = make_plan(config, held.image.shape[0], held.also)
    for step in range(steps):
      batch = make_batch(held, step)
      cases = np.asarray(sample_batch(plan, config.seed, step).case)
      images, labels = np.asarray(batch.image)[..., 0], np.asarray(batch.label)
      for case, image, label in zip(cases, images, labels, strict=True):
        yield Patch(bool(case >= plan.cases - held.also), image, label)
