"""Makes network input inside jit: crops patches where needed, normalises and augments them."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.augment.histogram import is_matched, match_histogram
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import (
  augment_patch,
  change_appearance,
  pose_patch,
  source_shape,
)
from attn_unet_jax.cases.joined_cases import count_also
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.prepare_ahead import open_threads
from attn_unet_jax.cases.target import keep_boundary
from attn_unet_jax.labels import SHARE_STEPS, UNLABELLED, is_foreground
from attn_unet_jax.painting.anatomy import vary_anatomy
from attn_unet_jax.painting.patch import paint_patch
from attn_unet_jax.patches.device_source import ResidentSet, SourceBlock, crop_patches
from attn_unet_jax.patches.host_cropper import HostCropper, stack_blocks
from attn_unet_jax.patches.options import PatchRecipe
from attn_unet_jax.patches.padded_case import Shape
from attn_unet_jax.patches.schedule import BatchSample, SchedulePlan, sample_batch

Array = jax.Array


class StreamedBatch(NamedTuple):
  """The blocks that a streaming source cropped for a step, and the number of the step.

  The blocks' leading axes are the micro-batches of the step (`train.accumulate`) and the patches of
  each.
  """

  step: Array
  blocks: SourceBlock


StepInput = ResidentSet | StreamedBatch
Drawn = TypeVar("Drawn", BatchSample, SourceBlock)
Share = Callable[[Drawn], Drawn]

# Without it the fixed patches would be those of the first training steps.
_FIXED_SEED_OFFSET = 2**20
# Apart from what `augment_patch` makes of the key that it gets too.
_PAINTING_STREAM, _ANATOMY_STREAM = 900, 901


class NetworkInput(NamedTuple):
  """The normalised images `[N, X, Y, Z, 1]`, float32, and class indices `[N, X, Y, Z]`, uint8.

  Soft labels are float32 shares in [0, 1] instead, or `UNLABELLED`.
  """

  image: Array
  label: Array


def take_whole_batch(drawn: Drawn) -> Drawn:
  """Returns the whole batch, as the share of a single device."""
  return drawn


def make_training_batch(
  recipe: PatchRecipe,
  feed: StepInput,
  step: Array | int,
  margin: Shape = (0, 0, 0),
  share: Share[Any] = take_whole_batch,
  shares: int = 1,
) -> NetworkInput:
  """Returns the augmented global batch of one step, or a device's share of it.

  Args:
    recipe: what decides the patches.
    feed: the resident training set, or the blocks that a streaming source cropped for this step.
    step: number of the step.
    margin: voxels by which the network's output is smaller than the patch, on each side. The output
      lies within the scan; its surroundings, which the network sees too, may not.
    share: selects the patches of the global batch that are made here. A patch depends only on its
      place in the global batch, so that every division makes the same patches.
    shares: equal parts of the selected patches that are made side by side, each on a device.
  """
  patch, augmentation = recipe.data.patch, recipe.augment
  if isinstance(feed, ResidentSet):
    # The whole batch is sampled before it is divided, so that patches do not depend on the devices.
    plan = make_plan(recipe, feed.image.shape[0], feed.also)
    draw = share(sample_batch(plan, recipe.seed, step))
    blocks = crop_patches(
      feed, draw, output_shape(patch, margin), source_shape(patch, augmentation), shares
    )
  else:
    blocks = share(feed.blocks)
  return _make_input(recipe, blocks, augmentation, shares)


def make_training_cropper(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], margin: Shape = (0, 0, 0)
) -> HostCropper:
  """Returns a cropper that crops on the host the blocks of `make_training_batch`."""
  patch = recipe.data.patch
  block = source_shape(patch, recipe.augment)
  plan = make_plan(recipe, len(cases), count_also(cases))
  extent = output_shape(patch, margin)
  return HostCropper(cases, plan, recipe.seed, extent, block, mixed=mixes_maps(recipe))


def mixes_maps(recipe: PatchRecipe) -> bool:
  """Returns whether the images of the second data set alone are painted."""
  return recipe.painting.enabled and bool(recipe.data.also)


def crop_fixed_batches(
  recipe: PatchRecipe,
  cases: Sequence[WorkingCase],
  margin: Shape = (0, 0, 0),
  parts: int = 1,
  *,
  mixed: bool = False,
  also: int = 0,
) -> list[NetworkInput]:
  """Crops the patches on which losses are logged, without augmentation.

  Only the cases that these patches need are read.

  Args:
    recipe: what decides the patches.
    cases: the cases to crop from.
    margin: as for `make_training_batch`.
    parts: equal parts into which each batch of `train.batch_size` patches is divided.
    mixed: whether some of the cases hold materials to paint on, and others HU.
    also: how many of the cases, the last ones, are those of a second data set. Its share of the
      patches is that of the training.
  """
  patch, size = recipe.data.patch, recipe.train.batch_size
  seed = recipe.seed + _FIXED_SEED_OFFSET
  # No other scan is read for histograms that are not matched here.
  unmatched = dataclasses.replace(make_plan(recipe, len(cases), also), references=False)
  cutter = HostCropper(cases, unmatched, seed, output_shape(patch, margin), patch, mixed=mixed)
  make_input = jax.jit(lambda blocks: _make_input(recipe, blocks, Augmentation()))
  steps = range(math.ceil(recipe.train.loss_patches / size))
  places = [(step, row) for step in steps for row in range(size)]
  with open_threads() as threads:  # nearly every patch is of another case
    blocks = list(threads.map(lambda place: cutter(*place), places))
  count = size // parts
  batches = (stack_blocks(blocks[at : at + count]) for at in range(0, len(blocks), count))
  return [make_input(jax.device_put(batch)) for batch in batches]


def measure_foreground(
  recipe: PatchRecipe, cases: Sequence[WorkingCase], steps: int, margin: Shape = (0, 0, 0)
) -> float:
  """Returns the fraction of foreground among the labelled voxels in the patches of the first steps.

  Losses that balance foreground and background by a constant take it as `foreground`.
  """
  cutter = make_training_cropper(recipe, cases, margin)
  augmentation = recipe.augment
  # A loss sees the output alone, which is smaller than the patch by the margin.
  inner = tuple(slice(m, n - m) for m, n in zip(margin, recipe.data.patch, strict=True))

  @jax.jit
  def count_foreground(blocks: SourceBlock) -> Array:
    """Returns the foreground of a batch, and its labelled voxels, [2]."""
    label = _make_input(recipe, blocks, augmentation).label[:, *inner]
    labelled = label != UNLABELLED
    inside = label if recipe.data.has_soft_labels else is_foreground(label)
    return jnp.stack([jnp.sum(jnp.where(labelled, inside, 0)), jnp.sum(labelled)])

  total = np.zeros(2)
  for step in range(steps):
    blocks = stack_blocks([cutter(step, row) for row in range(recipe.train.batch_size)])
    total += jax.device_get(count_foreground(jax.device_put(blocks)))
  return float(total[0] / max(total[1], 1))


def output_shape(patch: Shape, margin: Shape) -> Shape:
  """Returns the shape of the network's output: the patch less `margin` voxels on each side."""
  x, y, z = (n - 2 * m for n, m in zip(patch, margin, strict=True))
  return x, y, z


def _make_input(
  recipe: PatchRecipe, blocks: SourceBlock, augmentation: Augmentation, shares: int = 1
) -> NetworkInput:
  label = _read_shares(blocks.label) if recipe.data.has_soft_labels else blocks.label
  if blocks.is_map is not None or holds_maps(blocks):
    image, label = _paint_patches(recipe, blocks, label, augmentation, shares)
  else:
    image, label = jax.vmap(
      lambda block, label: _augment_patch(recipe, block, label, augmentation)
    )(blocks, label)
  # Labels become boundaries last, so that a deformed organ has a boundary of one voxel.
  if recipe.data.target == "boundary":
    label = jax.vmap(keep_boundary)(label)
  return NetworkInput(image[..., None], label)


def holds_maps(blocks: SourceBlock) -> bool:
  """Returns whether blocks hold materials, on which images are painted, in place of HU."""
  return bool(blocks.image.dtype == jnp.uint8)


def _augment_patch(
  recipe: PatchRecipe, block: SourceBlock, label: Array, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Makes a patch of a block of HU: the normalised image and the label, [X, Y, Z]."""
  # Histograms are matched in HU, before normalisation, since z-scores need the reference's mean and
  # sd.
  if augmentation.histogram_probability:
    block = _match_histogram(block, augmentation)
  image = normalise_intensity(recipe.data, block.image, block.mean, block.sd)
  key = jax.random.wrap_key_data(block.key)
  return augment_patch(key, image, label, recipe.data.patch, augmentation)


def _paint_patches(
  recipe: PatchRecipe, blocks: SourceBlock, label: Array, augmentation: Augmentation, shares: int
) -> tuple[Array, Array]:
  """Makes the patches of blocks of materials, or of HU among them, with a leading batch axis."""

  def paint_one(pair: tuple[SourceBlock, Array]) -> tuple[Array, Array]:
    """Makes one patch: painted on materials, or of the HU that it has."""
    block, label = pair
    if block.is_map is None:
      return _paint_patch(recipe, block, label, augmentation)
    hu, materials = block._replace(is_map=None), block.image.astype(jnp.uint8)
    result: tuple[Array, Array] = jax.lax.cond(
      block.is_map,
      lambda: _paint_patch(recipe, hu._replace(image=materials), label, augmentation),
      lambda: _augment_patch(recipe, hu, label, augmentation),
    )
    return result

  parts = jax.tree.map(lambda x: x.reshape(shares, -1, *x.shape[1:]), (blocks, label))
  # A loop over the patches of a share: products with matrices round by the size of a batch, and
  # every division of it is to make the same bits.
  if shares == 1 and blocks.is_map is not None:
    # Without a batch axis only the branch that a patch needs is computed.
    first = jax.lax.map(paint_one, jax.tree.map(lambda x: x[0], parts))
    painted = jax.tree.map(lambda x: x[None], first)
  else:
    painted = jax.vmap(lambda part: jax.lax.map(paint_one, part))(parts)
  result: tuple[Array, Array] = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), painted)
  return result


def _paint_patch(
  recipe: PatchRecipe, block: SourceBlock, label: Array, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Makes a patch of a block of materials: the painted and normalised image and the label."""
  data, key = recipe.data, jax.random.wrap_key_data(block.key)
  # Painted in their final pose: slices lie across Z, however the patient lies.
  materials, label = pose_patch(key, block.image, label, data.patch, augmentation)
  painting_key = jax.random.fold_in(key, _PAINTING_STREAM)
  anatomy_key = jax.random.fold_in(key, _ANATOMY_STREAM)
  materials, label = vary_anatomy(anatomy_key, materials, label, recipe.painting, data.spacing_mm)
  hu = paint_patch(painting_key, materials, recipe.painting, data.window_hu, data.spacing_mm)
  image = normalise_intensity(data, hu, block.mean, block.sd)
  return change_appearance(key, image, augmentation), label


def _read_shares(label: Array) -> Array:
  """Returns stored shares as float32 in [0, 1]; `UNLABELLED` stays."""
  return jnp.where(label == UNLABELLED, jnp.float32(UNLABELLED), label / jnp.float32(SHARE_STEPS))


def _match_histogram(block: SourceBlock, augmentation: Augmentation) -> SourceBlock:
  """Matches a block's histogram to its reference, with the set probability."""
  assert block.reference is not None
  own, other, mean, sd = block.reference
  key = jax.random.wrap_key_data(block.key)
  chosen = is_matched(key, augmentation.histogram_probability)
  hu = block.image.astype(jnp.float32)
  # Both results are computed and one is chosen: a branch under vmap would compute both as well.
  return block._replace(
    image=jnp.where(chosen, match_histogram(hu, own, other), hu),
    mean=jnp.where(chosen, mean, block.mean),
    sd=jnp.where(chosen, sd, block.sd),
  )


def make_plan(recipe: PatchRecipe, cases: int, also: int = 0) -> SchedulePlan:
  """Returns the parts of a recipe that the schedule depends on.

  The last `also` of the cases are those of a second data set.
  """
  data = recipe.data
  return SchedulePlan(
    cases=cases,
    batch_size=recipe.train.batch_size,
    cases_per_block=data.cases_per_block,
    patches_per_case=data.patches_per_case,
    foreground_fraction=data.foreground_fraction,
    references=recipe.augment.histogram_probability > 0,
    also=also,
    also_share=data.also_share if also else 0.0,
  )


def normalise_intensity(data: DataOptions, hu: Array, mean: Array, sd: Array) -> Array:
  """Normalises HU of any shape to network input, float32.

  `window`: (clip(HU, low, high) - low) / (high - low). `zscore`: (HU - mean) / sd with the mean and
  the sd of the whole scan, in HU.
  """
  hu = hu.astype(jnp.float32)
  if data.normalisation == "zscore":
    return (hu - mean) / sd
  low, high = data.window_hu
  return (jnp.clip(hu, low, high) - low) / (high - low)
