"""Network input from what a source feeds: cut or already cut, normalised, augmented, inside jit."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.augment.histogram import is_matched, match_histogram
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import augment, source_shape
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.target import boundary
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.device_source import Block, Resident, cut
from attn_unet_jax.patches.host_cropper import Cutter, together
from attn_unet_jax.patches.options import PatchRecipe
from attn_unet_jax.patches.padded_case import Shape
from attn_unet_jax.patches.schedule import Draw, Plan, schedule

Array = jax.Array


class Fed(NamedTuple):
  """The blocks that a streaming source cut for a step, and the number of the step.

  The blocks' leading axes are the parts that a step takes one after the other
  (`train.accumulate`), and the patches of each.
  """

  step: Array
  blocks: Block


Feed = Resident | Fed
Drawn = TypeVar("Drawn", Draw, Block)
Share = Callable[[Drawn], Drawn]

_FIXED_SEED_OFFSET = 2**20  # fixed patches must not be the training's first ones


class Batch(NamedTuple):
  """Images `[N, X, Y, Z, 1]` float32, normalised, and class indices `[N, X, Y, Z]` uint8."""

  image: Array
  label: Array


def whole(drawn: Drawn) -> Drawn:
  """The share of a single device: all of it."""
  return drawn


def training_batch(
  recipe: PatchRecipe,
  feed: Feed,
  step: Array | int,
  margin: Shape = (0, 0, 0),
  share: Share = whole,
  shares: int = 1,
) -> Batch:
  """The augmented global batch of one step, or a device's share of it.

  Args:
    recipe: what decides the patches.
    feed: the training set, or what a streaming source cut for this step.
    step: number of the step.
    margin: voxels by which the network's output is smaller than the patch, on each side. What the
      network answers for lies within the scan; what it sees around may not.
    share: which patches of the global batch are made here. What a patch is depends on its place
      in the global batch alone, so every division makes the same ones.
    shares: equal parts of what `share` leaves that are made side by side, on a device each.
  """
  patch, augmentation = recipe.data.patch, recipe.augment
  if isinstance(feed, Resident):
    draw = share(schedule(plan(recipe, feed.image.shape[0]), recipe.seed, step))
    blocks = cut(feed, draw, answered(patch, margin), source_shape(patch, augmentation), shares)
  else:
    blocks = share(feed.blocks)
  return _input(recipe, blocks, augmentation)


def training_cutter(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], margin: Shape = (0, 0, 0)
) -> Cutter:
  """Cuts on the host the blocks that `training_batch` cuts out of a resident set."""
  patch = recipe.data.patch
  block = source_shape(patch, recipe.augment)
  return Cutter(cases, plan(recipe, len(cases)), recipe.seed, answered(patch, margin), block)


def fixed_batches(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], margin: Shape = (0, 0, 0), parts: int = 1
) -> list[Batch]:
  """The patches on which losses are logged, not augmented; reads only the cases that they need.

  Args:
    recipe: what decides the patches.
    cases: what they are cut from.
    margin: as for `training_batch`.
    parts: equal parts into which each batch of the training's size is divided.
  """
  patch, size = recipe.data.patch, recipe.train.batch_size
  seed = recipe.seed + _FIXED_SEED_OFFSET
  unmatched = dataclasses.replace(plan(recipe, len(cases)), references=False)
  cutter = Cutter(cases, unmatched, seed, answered(patch, margin), patch)
  normalised = jax.jit(lambda blocks: _input(recipe, blocks, Augmentation()))
  steps = range(math.ceil(recipe.train.loss_patches / size))
  rows = np.split(np.arange(size), parts)
  cuts = (together([cutter(step, row) for row in part]) for step in steps for part in rows)
  return [normalised(jax.device_put(blocks)) for blocks in cuts]


def foreground_part(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], steps: int, margin: Shape = (0, 0, 0)
) -> float:
  """Part of the labelled voxels that is foreground, in the patches of the first steps.

  What losses that balance foreground and background by one number for the whole training take.
  """
  cutter = training_cutter(recipe, cases, margin)
  augmentation = recipe.augment
  inner = tuple(slice(m, n - m) for m, n in zip(margin, recipe.data.patch, strict=True))

  @jax.jit
  def counts(blocks: Block) -> Array:
    label = _input(recipe, blocks, augmentation).label[:, *inner]
    labelled = label != UNLABELLED
    return jnp.stack([jnp.sum(labelled & (label > 0)), jnp.sum(labelled)])

  total = np.zeros(2, np.int64)
  for step in range(steps):
    blocks = together([cutter(step, row) for row in range(recipe.train.batch_size)])
    total += jax.device_get(counts(jax.device_put(blocks)))
  return float(total[0] / max(total[1], 1))


def answered(patch: Shape, margin: Shape) -> Shape:
  """The part of a patch that the network answers for."""
  x, y, z = (n - 2 * m for n, m in zip(patch, margin, strict=True))
  return x, y, z


def _input(recipe: PatchRecipe, blocks: Block, augmentation: Augmentation) -> Batch:
  if augmentation.histogram_probability:
    blocks = jax.vmap(lambda block: _matched(block, augmentation))(blocks)
  image = jax.vmap(lambda hu, mean, sd: normalise(recipe.data, hu, mean, sd))(
    blocks.image, blocks.mean, blocks.sd
  )
  image, label = jax.vmap(
    lambda key, hu, label: augment(key, hu, label, recipe.data.patch, augmentation)
  )(jax.random.wrap_key_data(blocks.key), image, blocks.label)
  if recipe.data.target == "boundary":
    label = jax.vmap(boundary)(label)
  return Batch(image[..., None], label)


def _matched(block: Block, augmentation: Augmentation) -> Block:
  """The block, or with the histogram, the mean and the sd of its reference."""
  assert block.reference is not None
  own, other, mean, sd = block.reference
  key = jax.random.wrap_key_data(block.key)
  chosen = is_matched(key, augmentation.histogram_probability)
  hu = block.image.astype(jnp.float32)
  return block._replace(
    image=jnp.where(chosen, match_histogram(hu, own, other), hu),
    mean=jnp.where(chosen, mean, block.mean),
    sd=jnp.where(chosen, sd, block.sd),
  )


def plan(recipe: PatchRecipe, cases: int) -> Plan:
  """What the schedule needs of a recipe."""
  data = recipe.data
  return Plan(
    cases=cases,
    batch_size=recipe.train.batch_size,
    cases_per_block=data.cases_per_block,
    patches_per_case=data.patches_per_case,
    foreground_fraction=data.foreground_fraction,
    references=recipe.augment.histogram_probability > 0,
  )


def normalise(data: DataOptions, hu: Array, mean: Array, sd: Array) -> Array:
  """HU of any shape to network input, float32.

  `window`: (clip(HU, low, high) - low) / (high - low). `zscore`: (HU - mean) / sd with the mean and
  the sd of the whole scan, in HU.
  """
  hu = hu.astype(jnp.float32)
  if data.normalisation == "zscore":
    return (hu - mean) / sd
  low, high = data.window_hu
  return (jnp.clip(hu, low, high) - low) / (high - low)
