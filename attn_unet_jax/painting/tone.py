"""Gamma and contrast of a scan in HU: scanners and filters differ in both."""

import jax.numpy as jnp
from jax import Array

LOW_HU, HIGH_HU = -200.0, 300.0  # between which gamma bends
_SOFT_TISSUE_HU = 40.0  # which keeps its value when the contrast changes


def bend_tone(hu: Array, gamma: Array | float, contrast: Array | float) -> Array:
  """Changes contrast and gamma; order is kept, and HU beyond the bent range gain no step.

  v = s + c (HU - s);  v + (h - l) (t^g - t),  t = clip((v - l) / (h - l), 0, 1)
  """
  hu = _SOFT_TISSUE_HU + contrast * (hu - _SOFT_TISSUE_HU)
  extent = HIGH_HU - LOW_HU
  place = jnp.clip((hu - LOW_HU) / extent, 0, 1)
  return hu + extent * (place**gamma - place)
