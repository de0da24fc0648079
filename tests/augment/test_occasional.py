"""The augmentations with a probability: off by default, by the patch's key, apart from others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.occasional import OCCASIONAL, apply_occasional
from attn_unet_jax.augment.options import OKTAY_2018, Augmentation
from attn_unet_jax.augment.patch import augment_patch

IMAGE = jnp.array(np.random.default_rng(0).uniform(0, 1, (6, 5, 4)), jnp.float32)
LABEL = jnp.array(np.random.default_rng(1).integers(0, 2, (6, 5, 4)), jnp.uint8)
KEYS = jax.random.split(jax.random.key(0), 400)


def _only(name, probability):
  return Augmentation(**{f"{name}_probability": probability})


def test_all_have_a_probability_of_0():
  for options in (Augmentation(), OKTAY_2018):
    assert not any(getattr(options, f"{name}_probability") for name in OCCASIONAL)
  trace = jax.make_jaxpr(lambda key: apply_occasional(key, IMAGE, Augmentation()))(KEYS[0])
  assert not trace.eqns


@pytest.mark.parametrize("name", OCCASIONAL)
def test_it_changes_its_share_of_the_patches_and_their_images_alone(name):
  options = _only(name, 0.3)
  image, label = jax.jit(
    jax.vmap(lambda key: augment_patch(key, IMAGE, LABEL, (6, 5, 4), options))
  )(KEYS)
  changed = np.asarray((image != IMAGE).any((1, 2, 3)))
  assert abs(changed.mean() - 0.3) < 0.07
  assert (np.asarray(label) == LABEL).all()
  # Of so small a patch there are few coarser grids; whatever else is drawn has many values.
  assert len({patch.tobytes() for patch in np.asarray(image)[changed]}) > 5


def test_a_key_gives_the_same_bits_and_what_is_off_changes_no_draw():
  both = dataclasses.replace(_only("blur", 1.0), gamma_probability=1.0)
  first, again = (apply_occasional(KEYS[0], IMAGE, both) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  blurred = apply_occasional(KEYS[0], IMAGE, _only("blur", 1.0))
  then = apply_occasional(KEYS[0], blurred, _only("gamma", 1.0))
  np.testing.assert_array_equal(first, then)


def test_noise_is_added_to_its_share_of_the_patches():
  always, seldom = (
    Augmentation(noise_sd=(0.1, 0.1), noise_probability=share) for share in (1.0, 0.25)
  )

  def augment(options):
    draw = jax.vmap(lambda key: augment_patch(key, IMAGE, LABEL, (6, 5, 4), options)[0])
    return np.asarray(jax.jit(draw)(KEYS))

  noisy, sparse = augment(always), augment(seldom)
  applied = (sparse != np.asarray(IMAGE)).any((1, 2, 3))
  assert abs(applied.mean() - 0.25) < 0.07
  np.testing.assert_array_equal(sparse[applied], noisy[applied])
