"""The ranges of all random draws of a painting. Loads no JAX."""

from dataclasses import dataclass

from attn_unet_jax.runtime.options import FRACTION, NOT_NEGATIVE, POSITIVE, Options, Rule, option

Range = tuple[float, float]

_ORDERED = Rule("(lo, hi) with lo <= hi", lambda ends: ends[0] <= ends[1], whole=True)


@dataclass(frozen=True)
class Painting(Options):
  """The ranges of all random draws of a painting, which are uniform."""

  enabled: bool = option(
    False, "Whether the images of training patches are painted on their label maps in each step."
  )
  free_tissues: float = option(
    0.15, "Probability that a tissue's mean is drawn anywhere in data.window_hu.", FRACTION
  )
  # Wider than between the patients of one hospital.
  spread: float = option(1.4, "Factor on the sd of tissues' means between patients.", NOT_NEGATIVE)
  fat: Range = option((0.0, 0.6), "Range of the share of fat in the pancreas.", _ORDERED, FRACTION)
  clutter: Range = option(
    (0.0, 0.0),
    "Range of the share of the fat between the viscera in which loops of bowel and vessels lie.",
    _ORDERED,
    FRACTION,
  )
  lesions: float = option(
    0.0, "Probability that the pancreas of a patch has a tumour or a cyst, part of it.", FRACTION
  )
  bone_rim_hu: Range = option(
    (0.0, 0.0),
    "Range of how far the rims of bones lie above their marrow, HU; zeros: bone is rough, rimless.",
    _ORDERED,
    NOT_NEGATIVE,
  )
  muscle_fat: Range = option(
    (0.0, 0.0), "Range of the share of fat in muscles.", _ORDERED, FRACTION
  )
  texture: Range = option(
    (0.5, 1.6), "Range of the factor on the variation within tissues.", _ORDERED, NOT_NEGATIVE
  )
  blur_mm: Range = option(
    (0.4, 1.8), "Range of the sd of the reconstruction's blur, mm.", _ORDERED, NOT_NEGATIVE
  )
  slice_mm: Range = option(
    (1.0, 8.0), "Range of the thickness and distance of slices along Z, mm.", _ORDERED, POSITIVE
  )
  noise_hu: Range = option(
    (4.0, 28.0), "Range of the sd of the scanner's noise, HU.", _ORDERED, NOT_NEGATIVE
  )
  noise_grain_mm: Range = option(
    (0.8, 2.0), "Range of the blur of that noise, sd, mm.", _ORDERED, NOT_NEGATIVE
  )
  gamma: Range = option(
    (0.8, 1.25), "Range of the exponent on HU between -200 and 300.", _ORDERED, POSITIVE
  )
  contrast: Range = option(
    (0.85, 1.15), "Range of the factor on HU, about soft tissue.", _ORDERED, NOT_NEGATIVE
  )
