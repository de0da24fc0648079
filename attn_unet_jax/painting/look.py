"""What one scan looks like: the settings of its scanner and of its patient as a whole."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.painting.options import Painting


class ScanLook(NamedTuple):
  """The settings of one painting, scalars.

  Attributes:
    phase: where in the order of the contrast phases, in [0, 1): each has a part as large as its
      share of scans.
    towards: the phase towards which the scan lies, in [0, 1), all alike.
    between: how far on the way from `phase` to `towards`, in [0, 1).
    drunk: whether the patient drank contrast agent, in [0, 1), to be compared with a share.
    slice_phase: where the first slice lies, a fraction of the thickness.
    fat: share of fat in the pancreas.
    texture: factor on the variation within tissues.
    blur_mm: sd of the reconstruction's blur.
    slice_mm: thickness and distance of the slices.
    noise_hu: sd of the noise.
    noise_grain_mm: sd of the blur of the noise.
    gamma: exponent.
    contrast: factor on HU.
  """

  phase: Array
  towards: Array
  between: Array
  drunk: Array
  slice_phase: Array
  fat: Array
  texture: Array
  blur_mm: Array
  slice_mm: Array
  noise_hu: Array
  noise_grain_mm: Array
  gamma: Array
  contrast: Array


def draw_look(key: Array, painting: Painting) -> ScanLook:
  """Draws the look of one scan, every setting uniformly in its range."""
  # In the order of the fields; phases, the drink and the place of slices have no range to choose.
  ranges = [(0.0, 1.0)] * 5 + [
    painting.fat,
    painting.texture,
    painting.blur_mm,
    painting.slice_mm,
    painting.noise_hu,
    painting.noise_grain_mm,
    painting.gamma,
    painting.contrast,
  ]
  low, high = (jnp.array([pair[i] for pair in ranges], jnp.float32) for i in (0, 1))
  # One draw for all: each draw of its own is a program of its own, and takes seconds to compile.
  return ScanLook(*(low + (high - low) * jax.random.uniform(key, low.shape)))
