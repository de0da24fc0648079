"""Network input from a resident set: scheduled, cut, normalised, augmented; all inside jit."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from attn_unet_jax.augment import Augmentation, augment, source_shape
from attn_unet_jax.data.resident import Resident, Shape, corners, cut
from attn_unet_jax.data.schedule import Draw, Plan, schedule

Array = jax.Array
Share = Callable[[Draw], Draw]

_FIXED_SEED_OFFSET = 2**20  # fixed patches must not be the training's first ones


class Batch(NamedTuple):
  """Images `[N, X, Y, Z, 1]` float32, normalised, and class indices `[N, X, Y, Z]` uint8."""

  image: Array
  label: Array


def whole(draw: Draw) -> Draw:
  """The share of a single device: all of it."""
  return draw


def training_batch(
  config: ConfigDict,
  data: Resident,
  step: Array | int,
  margin: Shape = (0, 0, 0),
  share: Share = whole,
) -> Batch:
  """The augmented global batch of one step, or a device's share of it.

  Args:
    config: the run's config.
    data: the training set.
    step: number of the step.
    margin: voxels by which the network's output is smaller than the patch, on each side. What the
      network answers for lies within the scan; what it sees around may not.
    share: which patches of the global batch are made here. What a patch is depends on its place
      in the global batch alone, so every division makes the same ones.
  """
  draw = share(_draw(config, data, config.seed, step))
  return _batch(config, data, draw, margin, Augmentation(**config.augment))


def fixed_batch(
  config: ConfigDict, data: Resident, index: Array | int, margin: Shape = (0, 0, 0)
) -> Batch:
  """Batch `index` of the fixed patches on which losses are logged: no augmentation."""
  draw = _draw(config, data, config.seed + _FIXED_SEED_OFFSET, index)
  return _batch(config, data, draw, margin, Augmentation())


def training_corners(
  config: ConfigDict, data: Resident, step: Array | int, margin: Shape = (0, 0, 0)
) -> tuple[Array, Array]:
  """Where the patches of a step come from: case indices `[N]` and lowest voxels `[N, 3]`.

  The voxels are those of the working grid at which the part that the network answers for begins.
  """
  draw = _draw(config, data, config.seed, step)
  return draw.case, corners(data, draw, answered(config.data.patch, margin))


def answered(patch: Shape, margin: Shape) -> Shape:
  """The part of a patch that the network answers for."""
  x, y, z = (n - 2 * m for n, m in zip(patch, margin, strict=True))
  return x, y, z


def _draw(config: ConfigDict, data: Resident, seed: int, step: Array | int) -> Draw:
  return schedule(plan(config, data.image.shape[0]), seed, step)


def _batch(
  config: ConfigDict, data: Resident, draw: Draw, margin: Shape, augmentation: Augmentation
) -> Batch:
  patch = config.data.patch
  blocks, keys = cut(data, draw, answered(patch, margin), source_shape(patch, augmentation))
  image = jax.vmap(lambda hu, mean, sd: normalise(config, hu, mean, sd))(
    blocks.image, blocks.mean, blocks.sd
  )
  image, label = jax.vmap(lambda key, hu, label: augment(key, hu, label, patch, augmentation))(
    keys, image, blocks.label
  )
  return Batch(image[..., None], label)


def plan(config: ConfigDict, cases: int) -> Plan:
  """What the schedule needs of a config."""
  data = config.data
  return Plan(
    cases=cases,
    batch_size=config.train.batch_size,
    cases_per_block=data.cases_per_block,
    patches_per_case=data.patches_per_case,
    foreground_fraction=data.foreground_fraction,
  )


def normalise(config: ConfigDict, hu: Array, mean: Array, sd: Array) -> Array:
  """HU of any shape to network input, float32.

  `window`: (clip(HU, low, high) - low) / (high - low). `zscore`: (HU - mean) / sd with the mean and
  the sd of the whole scan, in HU.
  """
  hu = hu.astype(jnp.float32)
  if config.data.normalisation == "zscore":
    return (hu - mean) / sd
  low, high = config.data.window_hu
  return (jnp.clip(hu, low, high) - low) / (high - low)
