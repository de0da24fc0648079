"""Checks that an image's values are Hounsfield units.

By definition water is 0 HU and air is -1000 HU. Fat lies about -100, soft tissue between 0 and 100,
with contrast up to about 250. So every abdominal CT has many voxels between -200 and 300 HU, some
of them below -30, and air around the body. An image without them is on another scale.

A finding of the kind `hounsfield` and the severity `error` is one that the user may accept:
`--accept=hounsfield`.
"""

import math
from collections.abc import Iterator

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.checks import check_image
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.volume import Volume

_AIR_HU = (-1100, -850)  # noise spreads air around -1000; lung tissue begins above it
# Noise about air: where its middle lies, and the middle of what is below air.
_NOISY_AIR_HU, _NOISE_BELOW_HU = (-1050, -950), -1200
_TISSUE_HU = (-200, 300)  # fat to soft tissue with contrast
_FAT_AND_AIR_BELOW_HU = -30
_SAMPLE_VOXELS = 4_000_000  # voxels that shares are taken of
# Scanners store air as about 0, mostly with an intercept of -1024, sometimes with one of -1000.
_COMMON_OFFSETS = (1024, 1000)
_MIN_AIR_SHARE = 0.005
_MIN_SPAN_HU = 250
# A crop inside the body spans at least the noise of a scan and the difference of two tissues.
_MIN_CROP_SPAN_HU = 30
# Above the densest metal of scanners with an extended scale, which ends at 30 710 HU.
_MAX_HU = 31_000
# Of all voxels, and of those beyond air where these are few. Of an MR far fewer lie where tissue
# would be.
_MIN_TISSUE_SHARES = 0.05, 0.5
# Of all voxels, where an infant lies in the field of view of an adult; the rest is air.
_MIN_INFANT_SHARE, _MIN_AIR_AROUND = 0.005, 0.5
# MR and PET have no value below 0, but for overshoot, and what surrounds the body is close to it.
_DARK = 0.05  # of the highest value
_MIN_DARK_SHARE = 0.2
_MIN_NEGATED_SHARE = (
  0.1  # where air would be with the other sign; few of a CT's voxels are so dense
)
_MIN_EQUAL_SHARE = 0.75  # of the neighbours in a label map; noise makes them differ in an image
_BYTE, _SIGNED_BYTE = (0, 255), (-128, 127)
_OVERSHOOT = 8  # of interpolation, beyond the ends of an 8-bit picture


def intensity_findings(
  image: Volume, name: object, window_hu: tuple[float, float] | None = None
) -> Iterator[Finding]:
  """Yields what is wrong with the values of an image.

  Args:
    image: HU, as they should be, [X, Y, Z].
    name: its file.
    window_hu: the window that the values are clipped to before they are used: what lies beyond its
      ends is then no matter. None: all of them are used.
  """
  try:
    check_image(image, name)
  except UserError as error:
    yield Finding("error", "values", str(error))
    return
  sample = sample_voxels(image.array)
  values = _drop_padding(sample)
  problem = _scale_finding(values, image.array, name)
  if problem:
    yield problem
    return  # on another scale the limits below mean nothing
  if too_low := _too_low_finding(sample, name):
    yield too_low
  elif window_hu is None:
    yield from _padding_findings(sample, name)
  yield from _clipping_findings(values, name, window_hu)


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
  return _has_tissue(values) and negative >= 0.01 and high - low >= _MIN_SPAN_HU


def _has_tissue(values: np.ndarray) -> bool:
  """Returns whether enough of the values are those of fat and soft tissue."""
  share = _share_between(values, *_TISSUE_HU)
  least, least_of_body = _MIN_TISSUE_SHARES
  if share >= least or share < _MIN_INFANT_SHARE:
    return share >= least
  around = _share_between(values, *_AIR_HU)
  return around >= _MIN_AIR_AROUND and _share_beyond_air(values) >= least_of_body


def _share_beyond_air(values: np.ndarray) -> float:
  """Returns the share of fat and soft tissue among the values above those of air."""
  return _share_between(values[values > _AIR_HU[1]], *_TISSUE_HU)


def _scale_finding(values: np.ndarray, array: np.ndarray, name: object) -> Finding | None:
  """Returns what the values are, if they are no Hounsfield units."""
  low, high = float(values.min()), float(values.max())
  seen = f"{name}: values from {low:g} to {high:g} are no Hounsfield units"
  usual = np.percentile(values, (0.1, 99.9))
  if _is_label_map(values, array):
    return _scale_error(f"{seen} but those of a label map; give the CT that it belongs to")
  # Before anything else: tissue above 0 HU keeps its values where those below are wrapped around.
  if low < -_MAX_HU or usual[1] > _MAX_HU:
    return _scale_error(
      f"{seen}: no tissue and no metal has such values; were negative ones stored without a sign? "
      "convert the scan again from its DICOM"
    )
  if (low, high) != _SIGNED_BYTE and _looks_like_ct(values):
    if not _is_negated(values):
      return None
    return _scale_error(
      f"{seen}: air lies at 1000 instead of -1000, as by a slope of the wrong sign; convert the "
      "scan again from its DICOM"
    )
  if usual[1] - usual[0] < _MIN_CROP_SPAN_HU:
    return _scale_error(
      f"{seen} (air is -1000, bone about 1000); give the scan as it was before normalisation"
    )
  if _is_byte_picture(values):
    return _scale_error(
      f"{seen} but those of an 8-bit picture; convert the scan again from its DICOM"
    )
  if offset := _find_offset(values):
    air = _commonest_value(values[values < offset / 2])
    return _scale_error(
      f"{seen}: air lies at {air:.0f} instead of -1000, as if the intercept was left out; "
      f"subtract {offset}"
    )
  if dark := _measure_dark_ground(values, usual[1]):
    return _scale_error(
      f"{seen}: nothing lies below 0, and {dark:.0%} of the voxels are dark, as in another modality"
      " (MR, PET), or where slope and intercept were left out; give a CT, converted from its DICOM"
    )
  # A crop inside the body has no air. Tissue in the right place then speaks for Hounsfield units.
  tissue = _share_between(values, *_TISSUE_HU)
  if tissue >= _MIN_TISSUE_SHARES[0] and low > _AIR_HU[1]:
    most = " to ".join(f"{value:.0f}" for value in usual)
    return Finding(
      "warning",
      "hounsfield",
      f"{name}: nearly all values lie from {most}; a CT reaches from air (-1000) or fat (-100) to "
      "bone (above 300): a tight crop, another modality, or another scale: look at it",
    )
  return _scale_error(
    f"{seen}: {tissue:.1%} of the voxels lie between {_TISSUE_HU[0]} and {_TISSUE_HU[1]}, where "
    f"fat and soft tissue are (the commonest value is {_commonest_value(values):.0f}); slope or "
    "intercept are wrong, convert the scan again from its DICOM"
  )


def _is_negated(values: np.ndarray) -> bool:
  """Returns whether the voxels that would be air have the other sign."""
  negated = _share_between(values, -_AIR_HU[1], -_AIR_HU[0])
  return negated >= max(_MIN_NEGATED_SHARE, 10 * _share_between(values, *_AIR_HU))


def _is_byte_picture(values: np.ndarray) -> bool:
  """Returns whether values are those of a picture with 8 bits, perhaps interpolated."""
  ends = float(values.min()), float(values.max())
  if (_BYTE[0] <= ends[0] and ends[1] <= _BYTE[1]) or ends == _SIGNED_BYTE:
    return True
  low, high = _BYTE[0] - _OVERSHOOT, _BYTE[1] + _OVERSHOOT
  # Interpolated, it still has its black around the body.
  black = _share_between(values, low, _BYTE[0] + _OVERSHOOT)
  return bool(low <= ends[0] and ends[1] <= high and black > 0.05)


def _is_label_map(values: np.ndarray, array: np.ndarray) -> bool:
  """Returns whether values are numbers of labels: whole, and mostly those of their neighbours."""
  if values.min() < 0 or not np.array_equal(values, np.rint(values)):
    return False
  step = max(1, round((array.size / _SAMPLE_VOXELS) ** 0.5))
  rows = array[:, ::step, ::step]
  first, second = rows[:-1], rows[1:]
  is_labelled = first > 0
  return bool(is_labelled.any() and (first == second)[is_labelled].mean() >= _MIN_EQUAL_SHARE)


def _measure_dark_ground(values: np.ndarray, high: float) -> float:
  """Returns the share of voxels close to 0 where no value is plainly below it; 0 if they are few.

  Args:
    values: the sample.
    high: the highest usual value.
  """
  share = _share_between(values, -_DARK * high, _DARK * high)
  return share if values.min() >= -_DARK * high and share >= _MIN_DARK_SHARE else 0.0


def _find_offset(values: np.ndarray) -> int:
  """Returns the offset that, subtracted, makes the values those of a CT; 0 if none does."""
  # Values this low are air or lung already, so the intercept was applied.
  if (values < _TISSUE_HU[0]).mean() > 0.001:
    return 0
  for offset in _COMMON_OFFSETS:
    shifted = values - np.float32(offset)
    is_ct = _share_between(shifted, *_AIR_HU) > _MIN_AIR_SHARE and _looks_like_ct(shifted)
    if is_ct and _share_beyond_air(shifted) >= _MIN_TISSUE_SHARES[1]:
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


def _find_padding(values: np.ndarray) -> float | None:
  """Returns the value that marks what was not measured: the only common one below that of air."""
  # -2000 or -3024 mark the corners outside the scanner's round field of view.
  below = values[values < _AIR_HU[0]]
  if not below.size:
    return None
  found, counts = np.unique(below, return_counts=True)
  at = int(counts.argmax())
  share = counts[at] / below.size
  # Beside it there may be the noise of air.
  is_padding = share > 0.9 or (share > 0.5 and _is_noise_below(below[below != found[at]]))
  return float(found[at]) if is_padding else None


def _drop_padding(values: np.ndarray) -> np.ndarray:
  """Returns the values without the padding, unless nothing else is there."""
  padding = _find_padding(values)
  measured = values if padding is None else values[values != padding]
  return measured if measured.size else values


def _padding_findings(values: np.ndarray, name: object) -> Iterator[Finding]:
  """Yields a finding if many voxels mark what was not measured."""
  padding = _find_padding(values)
  share = float((values == padding).mean()) if padding is not None else 0.0
  if share >= 0.01:
    yield Finding(
      "warning",
      "padding",
      f"{name}: {share:.1%} of the voxels are {padding:g}, by which a scanner marks what it did "
      "not measure; they shift the mean of normalisation by zscore: set them to -1000",
    )


def _too_low_finding(values: np.ndarray, name: object) -> Finding | None:
  """Returns an error if many values, and not one of them, lie below that of air."""
  share = float((values < _AIR_HU[0]).mean())
  if share < 0.01 or _find_padding(values) is not None or _is_noisy_air(values):
    return None
  return _scale_error(
    f"{name}: {share:.1%} of the voxels lie below {_AIR_HU[0]} HU (to {values.min():g}), but air "
    "is -1000 and nothing is less; slope or intercept are wrong: convert the scan from its DICOM"
  )


def _is_noisy_air(values: np.ndarray) -> bool:
  """Returns whether what lies below air is its noise, which not every scanner clips at -1024."""
  low, high = _NOISY_AIR_HU
  is_air_right = low <= np.median(values[values < _AIR_HU[1]]) <= high
  return bool(is_air_right and _is_noise_below(values[values < _AIR_HU[0]]))


def _is_noise_below(below: np.ndarray) -> bool:
  """Returns whether values below those of air crowd close to them."""
  return bool(np.median(below) > _NOISE_BELOW_HU)


def _clipping_findings(
  values: np.ndarray, name: object, window_hu: tuple[float, float] | None
) -> Iterator[Finding]:
  """Yields a warning if many voxels lie at an end of the range, as after a display window."""
  low, high = float(values.min()), float(values.max())
  if window_hu and low <= window_hu[0] and window_hu[1] <= high:
    return
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
