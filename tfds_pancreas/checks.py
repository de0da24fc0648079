"""Whether a label lies on the pancreas of its scan: figures, and what is wrong with them."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from attn_unet_jax.volumes.box import bounding_slices

SOFT_TISSUE_HU = (-50, 200)
# On a non-contrast scan with a network's label the best wrong flip stays 0.21 below the identity,
# on phantoms 0.33; homogeneous neighbours such as the liver can bring a wrong flip above it.
FLIP_MARGIN = 0.1
SPACING_MM = 0.01
_IDENTITY = "none"


def label_figures(image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
  """Figures of an aligned pair.

  Args:
    image: HU [X, Y, Z] on canonical axes.
    label: 0 and 1, same shape, not empty.

  Returns:
    `label_voxels`; `mean_hu`, `sd_hu` and `soft_tissue` (the share within SOFT_TISSUE_HU) under the
    label; `flip_scores` by flipped axes.
  """
  inside = nonzero(label)
  hu = image[inside].astype(np.float64)
  return {
    "label_voxels": len(hu),
    "mean_hu": round(float(hu.mean()), 1),
    "sd_hu": round(float(hu.std()), 1),
    "soft_tissue": round(_soft(hu), 3),
    "flip_scores": {name: round(score, 3) for name, score in flip_scores(image, inside).items()},
  }


def nonzero(label: np.ndarray) -> tuple[np.ndarray, ...]:
  """`np.nonzero` of a label [X, Y, Z] that is mostly but not only 0, a few times as fast."""
  box = bounding_slices(label)
  assert box is not None, "the label is empty"
  inside = np.nonzero(label[box])
  return tuple(at + first.start for at, first in zip(inside, box, strict=True))


def flip_problem(scores: dict[str, float]) -> str:
  """Says which flip beats the identity by more than FLIP_MARGIN; '' where none does."""
  best = max(scores, key=lambda name: scores[name])
  if scores[best] - scores[_IDENTITY] <= FLIP_MARGIN:
    return ""
  return (
    f"flipped along {best} the label fits better: score {scores[best]:.3f} against "
    f"{scores[_IDENTITY]:.3f} as stored, at most {FLIP_MARGIN} more is allowed"
  )


def value_problem(label: np.ndarray) -> str:
  """Says which values an integer label has besides 0 and 1, or that it is empty; '' if neither."""
  low, high = label.min(), label.max()  # far faster than listing the values
  if low < 0 or high > 1:
    return f"label values are {np.unique(label)[:8].tolist()}, only 0 and 1 are allowed"
  return "" if high == 1 else "the label is empty"


def spacing_problem(scan_mm: Sequence[float], label_mm: Sequence[float]) -> str:
  """Compares the distance of slices from their positions with what the label's header says.

  A header that has the pixel size wrong is not about this scan at all and says nothing.
  """
  in_plane = np.abs(np.subtract(scan_mm[:2], label_mm[:2])).max() <= SPACING_MM
  if not in_plane or abs(scan_mm[2] - label_mm[2]) <= SPACING_MM:
    return ""
  return (
    f"slices are {scan_mm[2]:.3f} mm apart by their positions and {label_mm[2]:.3f} mm by the "
    f"label's header, at most {SPACING_MM} mm of difference is allowed"
  )


def flip_scores(image: np.ndarray, inside: Sequence[np.ndarray]) -> dict[str, float]:
  """Share of soft tissue minus sd / 250 HU under the label, for each of its eight flips.

  Args:
    image: HU [X, Y, Z].
    inside: indices of the label's voxels along each axis, as `nonzero` gives them.

  Returns:
    score by the flipped axes: 'none', 'x', ..., 'xyz'.
  """
  width = SOFT_TISSUE_HU[1] - SOFT_TISSUE_HU[0]
  scores = {}
  for flips in product((False, True), repeat=3):
    sizes = zip(inside, image.shape, flips, strict=True)
    hu = image[tuple(size - 1 - at if flip else at for at, size, flip in sizes)].astype(np.float64)
    name = "".join(axis for axis, flip in zip("xyz", flips, strict=True) if flip)
    scores[name or _IDENTITY] = _soft(hu) - float(hu.std()) / width
  return scores


def _soft(hu: np.ndarray) -> float:
  low, high = SOFT_TISSUE_HU
  return float(((hu >= low) & (hu <= high)).mean())
