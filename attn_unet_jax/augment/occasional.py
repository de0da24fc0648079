"""The intensity augmentations that apply to a share of the patches, in the order of nnU-Net.

Each is a pure function `(key, image [X, Y, Z], options) -> image` in a file of its own, a dataclass
of its options in `options`, and a line here. `augment.NAME_probability` says how often it applies.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.blur import blur_image
from attn_unet_jax.augment.brightness import change_brightness
from attn_unet_jax.augment.contrast import change_contrast
from attn_unet_jax.augment.gamma import bend_by_gamma, bend_inverted_by_gamma
from attn_unet_jax.augment.low_resolution import lower_resolution
from attn_unet_jax.augment.options import Augmentation

OCCASIONAL: dict[str, Callable[[Array, Array, Any], Array]] = {
  "blur": blur_image,
  "brightness": change_brightness,
  "contrast": change_contrast,
  "low_resolution": lower_resolution,
  "gamma_inverted": bend_inverted_by_gamma,
  "gamma": bend_by_gamma,
}

# The key of each is folded in with this number plus its place: a new one goes to the end, so that
# the others keep their draws.
_FIRST_KEY = 100


def apply_occasional(key: Array, image: Array, augmentation: Augmentation) -> Array:
  """Applies each augmentation of `OCCASIONAL` with its probability.

  Args:
    key: key of the patch's augmentation.
    image: [X, Y, Z], normalised.
    augmentation: probabilities and ranges, static; what has probability 0 costs nothing.

  Returns:
    [X, Y, Z].
  """
  for place, (name, change) in enumerate(OCCASIONAL.items()):
    probability = getattr(augmentation, f"{name}_probability")
    if probability:
      applies_key, own = jax.random.split(jax.random.fold_in(key, _FIRST_KEY + place))
      applies = jax.random.bernoulli(applies_key, probability)
      # Not `lax.cond`: in a batch, which `vmap` makes of this, it computes both sides as well.
      image = jnp.where(applies, change(own, image, augmentation), image)
  return image
