"""Checks that an image's values are Hounsfield units.

By definition water is 0 HU and air is -1000 HU. Fat lies about -100, soft tissue between 0 and 100,
with contrast up to about 250. So every abdominal CT has many voxels between -200 and 300 HU, some
of them below -30, and air around the body. An image without them is on another scale.
"""

import math
from collections.abc import Iterator

import numpy as np

from attn_unet_jax.inspection.finding import Finding
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.checks import check_image
from attn_unet_jax.volumes.volume import Volume

_AIR_HU = (-1100, -850)  # noise spreads air around -1000; lung tissue begins above it
_TISSUE_HU = (-200, 300)  # fat to soft tissue with contrast
_FAT_AND_AIR_BELOW_HU = -30
_SAMPLE_VOXELS = 4_000_000  # voxels that shares are taken of
# Scanners store air as about 0, mostly with an intercept of -1024, sometimes with one of -1000.
_COMMON_OFFSETS = (1024, 1000)
_MIN_AIR_SHARE = 0.005
_MIN_SPAN_HU = 250


def intensity_findings(image: Volume, name: str) -> Iterator[Finding]:
  """Yields what is wrong with the values of an image [X, Y, Z] of the file `name`."""
  try:
    check_image(image, name)
  except UserError as error:
    yield Finding("error", "values", str(error))
    return
  values = sample_voxels(image.array)
  problem = _scale_finding(values, name)
  if problem:
    yield problem
    return  # on another scale the limits below mean nothing
  yield from _padding_findings(values, name)
  yield from _clipping_findings(values, name)


def measure_range(image: Volume) -> dict[str, float]:
  """Measures the 0.1 % lowest and highest value; empty if one of them is not finite."""
  low, high = np.percentile(sample_voxels(image.array), (0.1, 99.9)).tolist()
  return {"low_hu": low, "high_hu": high} if math.isfinite(low + high) else {}


def sample_voxels(array: np.ndarray) -> np.ndarray:
  """Takes every n-th voxel along each axis, so that about 4 million are left: [N]."""
  step = max(1, round((array.size / _SAMPLE_VOXELS) ** (1 / 3)))
  return array[::step, ::step, ::step].ravel()


def _share_between(values: np.ndarray, low: float, high: float) -> float:
  return float(((values >= low) & (values <= high)).mean())


def _looks_like_ct(values: np.ndarray) -> bool:
  low, high = np.percentile(values, (0.1, 99.9))
  # The span refuses images whose values all lie near 0, such as z-scores.
  negative = float((values < _FAT_AND_AIR_BELOW_HU).mean())
  return (
    _share_between(values, *_TISSUE_HU) >= 0.05 and negative >= 0.01 and high - low >= _MIN_SPAN_HU
  )


def _scale_finding(values: np.ndarray, name: str) -> Finding | None:
  """Returns what the values are, if they are no Hounsfield units."""
  if _looks_like_ct(values):
    return None
  low, high = float(values.min()), float(values.max())
  seen = f"{name}: values from {low:g} to {high:g} are no Hounsfield units"
  if low >= 0 and high <= 255:
    return _scale_error(
      f"{seen} but those of an 8-bit picture; convert the scan again from its DICOM"
    )
  if offset := _find_offset(values):
    air = _commonest_value(values[values < offset / 2])
    return _scale_error(
      f"{seen}: air lies at {air:.0f} instead of -1000, as if the intercept was left out; "
      f"subtract {offset}"
    )
  # A crop inside the body has no air. Tissue in the right place then speaks for Hounsfield units.
  tissue = _share_between(values, *_TISSUE_HU)
  if tissue >= 0.05 and low > _AIR_HU[1]:
    most = " to ".join(f"{value:.0f}" for value in np.percentile(values, (0.1, 99.9)))
    return Finding(
      "warning",
      "hounsfield",
      f"{name}: nearly all values lie from {most}; a CT reaches from air (-1000) or fat (-100) to "
      "bone (above 300): a tight crop, or no Hounsfield units: look at it",
    )
  return _scale_error(
    f"{seen}: {tissue:.1%} of the voxels lie between {_TISSUE_HU[0]} and {_TISSUE_HU[1]}, where "
    f"fat and soft tissue are (the commonest value is {_commonest_value(values):.0f}); slope or "
    "intercept are wrong, convert the scan again from its DICOM"
  )


def _find_offset(values: np.ndarray) -> int:
  """Returns the offset that, subtracted, makes the values those of a CT; 0 if none does."""
  # Values this low are air or lung already, so the intercept was applied.
  if (values < _TISSUE_HU[0]).mean() > 0.001:
    return 0
  for offset in _COMMON_OFFSETS:
    shifted = values - np.float32(offset)
    if _share_between(shifted, *_AIR_HU) > _MIN_AIR_SHARE and _looks_like_ct(shifted):
      return offset
  return 0


def _scale_error(text: str) -> Finding:
  return Finding("error", "hounsfield", text)


def _commonest_value(values: np.ndarray) -> float:
  """Returns the commonest value, to a fiftieth of the range that most values lie in."""
  low, high = np.percentile(values, (1, 99))
  counts, edges = np.histogram(values, bins=50, range=(low, max(high, low + 1)))
  at = int(counts.argmax())
  return float(edges[at] + edges[at + 1]) / 2


def _padding_findings(values: np.ndarray, name: str) -> Iterator[Finding]:
  """Yields a finding if many values lie below that of air, which nothing real has."""
  below = values[values < _AIR_HU[0]]
  share = below.size / values.size
  if share < 0.01:
    return
  found, counts = np.unique(below, return_counts=True)
  at = int(counts.argmax())
  # One value, such as -2000 or -3024, marks the corners outside the scanner's round field of view.
  if counts[at] > 0.9 * below.size:
    yield Finding(
      "warning",
      "padding",
      f"{name}: {share:.1%} of the voxels are {found[at]:g}, by which a scanner marks what it did "
      "not measure; they shift the mean of normalisation by zscore: set them to -1000",
    )
  else:
    yield _scale_error(
      f"{name}: {share:.1%} of the voxels lie below {_AIR_HU[0]} HU (to {values.min():g}), but air "
      "is -1000 and nothing is less; slope or intercept are wrong: convert the scan from its DICOM"
    )


def _clipping_findings(values: np.ndarray, name: str) -> Iterator[Finding]:
  """Yields a warning if many voxels lie at an end of the range, as after a display window."""
  low, high = values.min(), values.max()
  at_low, at_high = float((values == low).mean()), float((values == high).mean())
  # A lowest value in air is usual, since scanners clip at -1024. A highest value above bone is that
  # of metal.
  if (low > _AIR_HU[1] and at_low > 0.05) or (high < 1000 and at_high > 0.002):
    yield Finding(
      "warning",
      "clipped",
      f"{name}: values were clipped to {low:g}..{high:g} HU ({at_low:.1%} of the voxels are the "
      f"lowest, {at_high:.1%} the highest); harmless only where config.data.window_hu lies inside",
    )
