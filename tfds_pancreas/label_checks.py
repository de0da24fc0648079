"""Whether a label lies on the pancreas of its scan: figures, and what is wrong with them."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from attn_unet_jax.volumes.box import bounding_slices

# HU. Within it lies the pancreas in every contrast phase (abdomen/tissues.py has means of 42 to
# 115), outside of it fat and gas.
SOFT_TISSUE_HU = (-50, 200)
# On a non-contrast scan with a network's label the best wrong flip stays 0.21 below the identity,
# on phantoms 0.33; homogeneous neighbours such as the liver can bring a wrong flip above it.
FLIP_MARGIN = 0.1
SPACING_MM = 0.01
_IDENTITY = "none"


def measure_label(image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
  """Measures the density under a label, as it lies and flipped.

  Args:
    image: HU [X, Y, Z] on canonical axes.
    label: 0 and 1 on the image's grid, not empty.

  Returns:
    `label_voxels`; `mean_hu`, `sd_hu` and `soft_tissue` (the share within SOFT_TISSUE_HU) under the
    label; `flip_scores` by flipped axes.
  """
  inside = find_nonzero(label)
  # Images may be float32, of which sums over an organ would lose digits.
  hu = image[inside].astype(np.float64)
  return {
    "label_voxels": len(hu),
    "mean_hu": round(float(hu.mean()), 1),
    "sd_hu": round(float(hu.std()), 1),
    "soft_tissue": round(_soft_tissue_share(hu), 3),
    "flip_scores": {name: round(score, 3) for name, score in score_flips(image, inside).items()},
  }


def find_nonzero(label: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns `np.nonzero` of a label [X, Y, Z] that is not empty."""
  # A label is mostly 0: looking only inside its box is a few times as fast.
  box = bounding_slices(label)
  assert box is not None, "the label is empty"
  inside = np.nonzero(label[box])
  return tuple(at + first.start for at, first in zip(inside, box, strict=True))


def find_flip_problem(scores: dict[str, float]) -> str:
  """Names the flip that beats the identity by more than FLIP_MARGIN; '' where none does."""
  best = max(scores, key=lambda name: scores[name])
  if scores[best] - scores[_IDENTITY] <= FLIP_MARGIN:
    return ""
  return (
    f"flipped along {best} the label fits better: score {scores[best]:.3f} against "
    f"{scores[_IDENTITY]:.3f} as stored, at most {FLIP_MARGIN} more is allowed"
  )


def find_value_problem(label: np.ndarray) -> str:
  """Says what an integer label has besides 0 and 1, or that it is empty; '' if neither."""
  low, high = label.min(), label.max()  # far faster than listing the values
  if low < 0 or high > 1:
    return f"label values are {np.unique(label)[:8].tolist()}, only 0 and 1 are allowed"
  return "" if high == 1 else "the label is empty"


def find_spacing_problem(scan_mm: Sequence[float], label_mm: Sequence[float]) -> str:
  """Compares the distance of slices from their positions with what the label's header says.

  Returns:
    how they differ; '' where they agree.
  """
  # A header with another pixel size is not about this scan at all, so it tells nothing of slices.
  in_plane = np.abs(np.subtract(scan_mm[:2], label_mm[:2])).max() <= SPACING_MM
  if not in_plane or abs(scan_mm[2] - label_mm[2]) <= SPACING_MM:
    return ""
  return (
    f"slices are {scan_mm[2]:.3f} mm apart by their positions and {label_mm[2]:.3f} mm by the "
    f"label's header, at most {SPACING_MM} mm of difference is allowed"
  )


def score_flips(image: np.ndarray, inside: Sequence[np.ndarray]) -> dict[str, float]:
  """Scores each of a label's eight flips: share of soft tissue minus sd / 250 HU under it.

  Args:
    image: HU [X, Y, Z].
    inside: indices of the label's voxels along each axis, as `find_nonzero` gives them.

  Returns:
    score by the flipped axes: 'none', 'x', ..., 'xyz'.
  """
  # An organ is one homogeneous tissue. A flipped label lies over several, gas and bone among them.
  width = SOFT_TISSUE_HU[1] - SOFT_TISSUE_HU[0]
  scores = {}
  for flips in product((False, True), repeat=3):
    # Indices are turned round instead of the volume: a label has far fewer voxels than a scan.
    sizes = zip(inside, image.shape, flips, strict=True)
    hu = image[tuple(size - 1 - at if flip else at for at, size, flip in sizes)].astype(np.float64)
    name = "".join(axis for axis, flip in zip("xyz", flips, strict=True) if flip)
    scores[name or _IDENTITY] = _soft_tissue_share(hu) - float(hu.std()) / width
  return scores


def _soft_tissue_share(hu: np.ndarray) -> float:
  low, high = SOFT_TISSUE_HU
  return float(((hu >= low) & (hu <= high)).mean())
