"""What a patch is drawn of: blocks of one shape, and keys that no other version changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import augment_patch, change_appearance

PATCH = (4, 3, 2)
KEY = jax.random.key(5)


def show_key(key, image):
  """Fills an image with the second half of its key."""
  return jnp.full(image.shape, jax.random.key_data(key)[1].astype(jnp.float32))


def test_further_augmentations_have_keys_of_their_own_that_stay():
  # A run that goes on by a newer version must draw what it would have drawn.
  name = f"{__name__}:show_key"
  for count in (1, 2, 3):
    options = Augmentation(extra=(name,) * count)
    shown = change_appearance(KEY, jnp.zeros(PATCH), options)
    expected = jax.random.key_data(jax.random.fold_in(KEY, 999 + count))[1]
    np.testing.assert_array_equal(shown, np.full(PATCH, np.float32(expected)))


@pytest.mark.parametrize("other", [(4, 3, 1), (4, 3, 3)])
@pytest.mark.parametrize("place", [0, 1])
def test_a_block_of_another_shape_is_refused(other, place):
  shapes = [PATCH, PATCH]
  shapes[place] = other
  image, label = jnp.zeros(shapes[0]), jnp.zeros(shapes[1], jnp.uint8)
  with pytest.raises(ValueError, match=r"expected \(4, 3, 2\)"):
    augment_patch(KEY, image, label, PATCH, Augmentation())
