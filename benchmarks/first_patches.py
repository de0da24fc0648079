"""The first patches of a training, as the network sees them, and what they are like."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy import ndimage

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.batch import make_plan, make_training_batch
from attn_unet_jax.patches.device_source import ResidentSet
from attn_unet_jax.patches.schedule import sample_batch
from attn_unet_jax.training.inputs import open_inputs
from attn_unet_jax.workflows.network import build_run_network

_FAT_HU = -30.0  # below it a voxel is fat for the most part


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
    assert isinstance(held, ResidentSet)
    plan = make_plan(config, held.image.shape[0], held.also)
    for step in range(steps):
      batch = make_batch(held, step)
      cases = np.asarray(sample_batch(plan, config.seed, step).case)
      images, labels = np.asarray(batch.image)[..., 0], np.asarray(batch.label)
      for case, image, label in zip(cases, images, labels, strict=True):
        yield Patch(bool(case >= plan.cases - held.also), image, label)


def measure_patch(hu: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """Measures a patch with pancreas, which is class 1.

  Args:
    hu: float [X, Y, Z], clipped to the window.
    label: class indices, `UNLABELLED` where there is no scan.
  """
  pancreas = label == 1
  # In the planes alone: slabs may be a few slices thin.
  beside = ndimage.binary_dilation(pancreas, np.ones((7, 7, 1))) & ~pancreas & (label != UNLABELLED)
  inside = ndimage.binary_erosion(pancreas, np.ones((3, 3, 1)))
  neighbours = hu[beside & (hu > _FAT_HU)]
  steep = np.hypot(*np.gradient(hu, axis=(0, 1)))
  return {
    "fat beside the pancreas, share": float(np.mean(hu[beside] < _FAT_HU)),
    "pancreas, HU": float(np.median(hu[pancreas])),
    "pancreas above its neighbours, HU": float(np.median(hu[pancreas]) - np.median(neighbours))
    if neighbours.size
    else float("nan"),
    "sd within it, HU": float(hu[inside].std()) if inside.any() else float("nan"),
    "sd of its neighbours, HU": float(neighbours.std()) if neighbours.size else float("nan"),
    "slope, HU a voxel": float(np.median(steep[(hu > -150) & (label != UNLABELLED)])),
  }
