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
from attn_unet_jax.cases.target import keep_boundary
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.device_source import ResidentSet, SourceBlock, crop_patches
from attn_unet_jax.patches.host_cropper import HostCropper, stack_blocks
from attn_unet_jax.patches.options import PatchRecipe
from attn_unet_jax.patches.padded_case import Shape
from attn_unet_jax.patches.schedule import BatchSample, SchedulePlan, sample_batch

Array = jax.Array


class StreamedBatch(NamedTuple):
  """The blocks that a streaming source cut for a step, and the number of the step.

  The blocks' leading axes are the parts that a step takes one after the other
  (`train.accumulate`), and the patches of each.
  """

  step: Array
  blocks: SourceBlock


StepInput = ResidentSet | StreamedBatch
Drawn = TypeVar("Drawn", BatchSample, SourceBlock)
Share = Callable[[Drawn], Drawn]

_FIXED_SEED_OFFSET = 2**20  # fixed patches must not be the training's first ones


class NetworkInput(NamedTuple):
  """Images `[N, X, Y, Z, 1]` float32, normalised, and class indices `[N, X, Y, Z]` uint8."""

  image: Array
  label: Array


def take_whole_batch(drawn: Drawn) -> Drawn:
  """The share of a single device: all of it."""
  return drawn


def make_training_batch(
  recipe: PatchRecipe,
  feed: StepInput,
  step: Array | int,
  margin: Shape = (0, 0, 0),
  share: Share = take_whole_batch,
  shares: int = 1,
) -> NetworkInput:
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
  if isinstance(feed, ResidentSet):
    draw = share(sample_batch(make_plan(recipe, feed.image.shape[0]), recipe.seed, step))
    blocks = crop_patches(
      feed, draw, output_shape(patch, margin), source_shape(patch, augmentation), shares
    )
  else:
    blocks = share(feed.blocks)
  return _make_input(recipe, blocks, augmentation)


def make_training_cropper(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], margin: Shape = (0, 0, 0)
) -> HostCropper:
  """Cuts on the host the blocks that `make_training_batch` cuts out of a resident set."""
  patch = recipe.data.patch
  block = source_shape(patch, recipe.augment)
  return HostCropper(
    cases, make_plan(recipe, len(cases)), recipe.seed, output_shape(patch, margin), block
  )


def crop_fixed_batches(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], margin: Shape = (0, 0, 0), parts: int = 1
) -> list[NetworkInput]:
  """The patches on which losses are logged, not augmented; reads only the cases that they need.

  Args:
    recipe: what decides the patches.
    cases: what they are cut from.
    margin: as for `make_training_batch`.
    parts: equal parts into which each batch of the training's size is divided.
  """
  patch, size = recipe.data.patch, recipe.train.batch_size
  seed = recipe.seed + _FIXED_SEED_OFFSET
  unmatched = dataclasses.replace(make_plan(recipe, len(cases)), references=False)
  cutter = HostCropper(cases, unmatched, seed, output_shape(patch, margin), patch)
  normalised = jax.jit(lambda blocks: _make_input(recipe, blocks, Augmentation()))
  steps = range(math.ceil(recipe.train.loss_patches / size))
  rows = np.split(np.arange(size), parts)
  cuts = (stack_blocks([cutter(step, row) for row in part]) for step in steps for part in rows)
  return [normalised(jax.device_put(blocks)) for blocks in cuts]


def measure_foreground(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], steps: int, margin: Shape = (0, 0, 0)
) -> float:
  """Part of the labelled voxels that is foreground, in the patches of the first steps.

  What losses that balance foreground and background by one number for the whole training take.
  """
  cutter = make_training_cropper(recipe, cases, margin)
  augmentation = recipe.augment
  inner = tuple(slice(m, n - m) for m, n in zip(margin, recipe.data.patch, strict=True))

  @jax.jit
  def counts(blocks: SourceBlock) -> Array:
    label = _make_input(recipe, blocks, augmentation).label[:, *inner]
    labelled = label != UNLABELLED
    return jnp.stack([jnp.sum(labelled & (label > 0)), jnp.sum(labelled)])

  total = np.zeros(2, np.int64)
  for step in range(steps):
    blocks = stack_blocks([cutter(step, row) for row in range(recipe.train.batch_size)])
    total += jax.device_get(counts(jax.device_put(blocks)))
  return float(total[0] / max(total[1], 1))


def output_shape(patch: Shape, margin: Shape) -> Shape:
  """The part of a patch that the network answers for."""
  x, y, z = (n - 2 * m for n, m in zip(patch, margin, strict=True))
  return x, y, z


def _make_input(
  recipe: PatchRecipe, blocks: SourceBlock, augmentation: Augmentation
) -> NetworkInput:
  if augmentation.histogram_probability:
    blocks = jax.vmap(lambda block: _match_histogram(block, augmentation))(blocks)
  image = jax.vmap(lambda hu, mean, sd: normalise_intensity(recipe.data, hu, mean, sd))(
    blocks.image, blocks.mean, blocks.sd
  )
  image, label = jax.vmap(
    lambda key, hu, label: augment(key, hu, label, recipe.data.patch, augmentation)
  )(jax.random.wrap_key_data(blocks.key), image, blocks.label)
  if recipe.data.target == "boundary":
    label = jax.vmap(keep_boundary)(label)
  return NetworkInput(image[..., None], label)


def _match_histogram(block: SourceBlock, augmentation: Augmentation) -> SourceBlock:
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


def make_plan(recipe: PatchRecipe, cases: int) -> SchedulePlan:
  """What the schedule needs of a recipe."""
  data = recipe.data
  return SchedulePlan(
    cases=cases,
    batch_size=recipe.train.batch_size,
    cases_per_block=data.cases_per_block,
    patches_per_case=data.patches_per_case,
    foreground_fraction=data.foreground_fraction,
    references=recipe.augment.histogram_probability > 0,
  )


def normalise_intensity(data: DataOptions, hu: Array, mean: Array, sd: Array) -> Array:
  """HU of any shape to network input, float32.

  `window`: (clip(HU, low, high) - low) / (high - low). `zscore`: (HU - mean) / sd with the mean and
  the sd of the whole scan, in HU.
  """
  hu = hu.astype(jnp.float32)
  if data.normalisation == "zscore":
    return (hu - mean) / sd
  low, high = data.window_hu
  return (jnp.clip(hu, low, high) - low) / (high - low)
