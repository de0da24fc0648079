"""Batches that are painted in the step: one schedule, the same bits, labels of their pose alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.painting.materials import VISCERAL_FAT
from attn_unet_jax.patches.batch import (
  StreamedBatch,
  holds_maps,
  make_training_batch,
  make_training_cropper,
)
from attn_unet_jax.patches.device_source import SourceBlock, make_resident
from attn_unet_jax.patches.host_cropper import stack_blocks
from tests.configs import small_config, with_keys
from tfds_pancreas.abdomen.organs import ORGANS

KEYS = {
  "data.patch": (8, 8, 8),
  "data.spacing_mm": 3.0,
  "train.batch_size": 4,
  "painting.enabled": True,
  "painting.clutter": (0.4, 0.8),
  "painting.lesions": 1.0,
  "augment.rotate_deg": (0.0, 0.0, 15.0),
  "augment.deform_sd": (0.5, 0.5, 0.5),
}


# Nothing that blurs or varies: each organ has one density, and none has a lesion.
PLAIN = {
  "painting.lesions": 0.0,
  "painting.noise_hu": (0.0, 0.0),
  "painting.texture": (0.0, 0.0),
  "painting.fat": (0.0, 0.0),
  "painting.free_tissues": 0.0,
  "painting.blur_mm": (0.0, 0.0),
  "painting.slice_mm": (1.0, 1.0),
  "data.window_hu": (-1000.0, 1000.0),
}
STEP = 7


@pytest.fixture(scope="module")
def cases():
  rng = np.random.default_rng(0)
  made = []
  for name in "abc":
    organs = np.full((14, 13, 12), ORGANS["liver"], np.uint8)
    organs[:6] = VISCERAL_FAT
    x, y, z = rng.integers(3, 8, 3)
    organs[x : x + 4, y : y + 4, z : z + 4] = ORGANS["pancreas"]
    label = (organs == ORGANS["pancreas"]).astype(np.uint8)
    made.append(WorkingCase(name, organs, label, 0.0, 1.0))
  return made


@pytest.fixture(scope="module")
def config():
  return with_keys(small_config(), KEYS)


@pytest.fixture(scope="module")
def data(config, cases):
  return make_resident(cases, config.data.patch)


@pytest.fixture(scope="module")
def whole(config, data):
  # The number of the step is an argument, as in training: what XLA folds rounds otherwise.
  return jax.jit(lambda data, step: make_training_batch(config, data, step))(data, STEP)


@pytest.fixture(scope="module")
def plain(config, data):
  return jax.jit(lambda data, step: make_training_batch(with_keys(config, PLAIN), data, step))(
    data, STEP
  )


@pytest.mark.slow
def test_every_division_of_a_batch_makes_the_same_bits(config, data, whole):
  """Of a step that may be the first after a resume: nothing but its number decides."""
  assert whole.image.dtype == jnp.float32
  assert 0 <= whole.image.min() < whole.image.max() <= 1

  def take_half(drawn):
    return jax.tree.map(lambda x: x[2:], drawn)

  half = jax.jit(lambda data, step: make_training_batch(config, data, step, share=take_half))
  for mine, everyones in zip(half(data, STEP), whole, strict=True):
    np.testing.assert_array_equal(mine, everyones[2:])


@pytest.mark.slow
def test_what_concerns_the_image_leaves_the_label(config, data, whole):
  quiet = with_keys(config, {"painting.noise_hu": (0.0, 0.0)})
  other = jax.jit(lambda data, step: make_training_batch(quiet, data, step))(data, STEP)
  np.testing.assert_array_equal(whole.label, other.label)
  assert (np.asarray(whole.image) != np.asarray(other.image)).any()
  assert whole.label.dtype == jnp.uint8
  assert set(np.unique(whole.label)) == {0, 1}


@pytest.mark.slow
def test_either_source_makes_the_same_patches(config, cases, whole):
  cutter = make_training_cropper(config, cases)
  blocks = stack_blocks([cutter(STEP, row) for row in range(4)])
  feed = StreamedBatch(jnp.int32(STEP), jax.device_put(blocks))
  streamed = jax.jit(lambda feed: make_training_batch(config, feed, feed.step))(feed)
  np.testing.assert_array_equal(streamed.label, whole.label)
  # Two programs: where XLA fuses otherwise, the last bit is rounded otherwise.
  np.testing.assert_allclose(streamed.image, whole.image, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_lesion_is_labelled_beyond_the_pancreas_of_the_map(whole, plain):
  grown = (np.asarray(whole.label) == 1) & (np.asarray(plain.label) == 0)
  assert grown.any()
  assert (np.asarray(whole.label)[np.asarray(plain.label) == 1] == 1).all()


def test_the_image_is_painted_on_the_pose_of_the_label(plain):
  """The pancreas has one density and the liver another, to the voxel."""
  apart = 0
  for image, label in zip(np.asarray(plain.image)[..., 0], np.asarray(plain.label), strict=True):
    inside, outside = image[label == 1], image[label == 0]
    if min(inside.size, outside.size) < 60:
      continue
    own, other = np.median(inside), np.median(outside)
    if abs(own - other) > 0.005:
      apart += 1
      # Partial volume blurs the border alone: most voxels are nearer to their own median.
      assert (abs(inside - own) < abs(inside - other)).mean() > 0.85
      assert (abs(outside - other) < abs(outside - own)).mean() > 0.85
  assert apart


def test_blocks_say_by_their_type_that_they_are_painted_on():
  blocks = SourceBlock(jnp.zeros((1, 8, 8, 8), jnp.uint8), None, None, None, None)
  assert holds_maps(blocks)
  assert not holds_maps(blocks._replace(image=jnp.zeros((1, 8, 8, 8), jnp.int16)))
