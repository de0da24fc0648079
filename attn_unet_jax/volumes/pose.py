"""Judges from the anatomy alone whether a scan lies as its header says.

A header that lies gives a mask that looks right and is wrong, and no other check sees it. What
speaks against a header:

* air at the first and at the last slice, and body at two other sides of the field of view;
* a trunk that is deeper than wide, with its spine to one side;
* a spine in the front of the trunk;
* lungs at the lower end;
* most of the solid tissue, of which the liver is the largest piece, on the left.

Each sign is judged only where it is clear, and all of them only where a trunk lies free enough in
the field of view. A thin slab, a crop or a scan of another part of the body passes in silence. One
sign is a warning, since a sign may deceive (a huge spleen; organs that are mirrored from birth).
Two are an error that the user may accept: `--accept=pose`.

The scan is looked at on voxels of about 4 mm, which takes a fraction of a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.components import SIX_NEIGHBOURS, fill_plane_holes, largest_component
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume

_STEP_MM = 4.0
_COARSEST_MM = 15.0  # of voxels that show a spine
_BODY_HU = -300.0
_BONE_HU = 200.0
_LUNG_HU = (-960.0, -500.0)  # the gas of bowel lies below
_SOLID_HU = (35.0, 180.0)  # on average; fluid and fat lie below, contrast medium and bone above
_SOLID_VOXEL_HU = (-30.0, 260.0)
_PLANE = ndimage.generate_binary_structure(2, 1)
_OPENED_MM = 12.0  # arms, table and clothes hang on by less

# Shares of a side of the field of view that is body, as of a cut trunk, and as of its skin.
_CUT, _FREE, _CROPPED = 0.2, 0.1, 0.5
_PADDED = 0.4  # of the plane beside padding; a plane that a body just touches has less
_LEAST_MM = (150.0, 100.0)  # of a trunk, across and along
_DEEP_MM = 25.0  # bone below ribs and breastbone is that of the spine
_MIDDLE = 0.25  # of half the trunk, to both sides
_LEAST_BONE_MM2 = 100.0  # of a slice
_OFF_CENTRE = 0.05  # of half the trunk
# Of the slices; on the wrong side of real and painted scans there were at most 0.47.
_MANY_SLICES = 0.65
_DEEPER = 1.1  # than wide; real trunks are wider
_LEAST_HEIGHT_MM = 120.0
_LEAST_LUNG_ML = 30.0
_LUNG_END = 0.5  # of half the height; in real and painted scans the lungs lie at 0.7 and above
_SOLID_END = 0.15
_LEAST_SOLID_ML = 60.0
_SOLID_SIDE = 0.1  # of half the width; in real and painted scans from -0.02 to 0.5
_HEAD_BONE = 0.12  # of a part of the body; a trunk has up to 0.06
_HEAD_MM = 280.0
_CHEST_LUNG = 0.1


class _Trunk(NamedTuple):
  """What is taken for the trunk.

  Attributes:
    hu: the scan on coarse voxels, its long axis last, float32.
    inside: the trunk with its lungs and gas, bool.
    mm: size of a voxel.
  """

  hu: np.ndarray
  inside: np.ndarray
  mm: np.ndarray

  @property
  def places(self) -> list[np.ndarray]:
    """For both axes across the trunk the places of voxels: -1 to 1 from side to side."""
    found = []
    for axis in (0, 1):
      ends = np.flatnonzero(self.inside.any(axis=(1 - axis, 2)))[[0, -1]]
      found.append((np.arange(self.hu.shape[axis]) - ends.mean()) / (np.ptp(ends) / 2 + 0.5))
    return found

  @property
  def widths(self) -> list[float]:
    """From side to side, along both axes across the trunk, in mm."""
    return [float(2 / np.diff(self.places[axis][:2])[0] * self.mm[axis]) for axis in (0, 1)]

  def measure_ml(self, mask: np.ndarray) -> float:
    """Measures the volume of a mask."""
    return float(np.count_nonzero(mask) * self.mm.prod() / 1000)


# By the axis that the trunk crosses; None if there is nothing like one.
FindTrunk = Callable[[int], _Trunk | None]


def pose_findings(image: Volume, name: object) -> Iterator[Finding]:
  """Yields what in the anatomy contradicts the header's axes, or that there is no abdomen.

  Args:
    image: HU [X, Y, Z].
    name: its file.
  """
  sampled, mm = _sample(to_canonical(image))
  hu = _cut_padding(sampled)
  if min(hu.shape) < 2 or mm.max() > _COARSEST_MM:
    return
  covered = _measure_sides(hu, mm)

  @functools.cache
  def find_trunk(axis: int) -> _Trunk | None:
    """Finds the trunk along an axis, once for all signs."""
    return _find_trunk(hu, mm, axis)

  signs = _list_signs(find_trunk, covered)
  if signs:
    yield Finding(
      "error" if len(signs) > 1 else "warning",
      "pose",
      f"{name}: the anatomy contradicts the header ({image.orientation}): {'; '.join(signs)}; is "
      "the scan flipped or turned? a mask of it would be wrong: correct its header",
    )
    return
  if part := _name_other_part(find_trunk, covered):
    yield Finding(
      "warning",
      "no_abdomen",
      f"{name}: {part}; the network knows abdomens alone, and finds organs that are not there",
    )


def _sample(canonical: Volume) -> tuple[np.ndarray, np.ndarray]:
  """Takes voxels of a canonical scan about 4 mm apart: float32 [X, Y, Z], and their size in mm."""
  taken = []
  for size, spacing in zip(canonical.shape, canonical.spacing, strict=True):
    count = min(size, max(1, round(size * spacing / _STEP_MM)))
    taken.append(((np.arange(count) + 0.5) * size / count).astype(np.intp))
  hu = canonical.array.T[np.ix_(*taken[::-1])].T.astype(np.float32, order="C")
  return hu, np.divide(canonical.grid.field_mm, hu.shape)


def _cut_padding(hu: np.ndarray) -> np.ndarray:
  """Cuts off planes of one value that were added to a scan where it cuts the body.

  Their air says nothing of where the body ends.
  """
  for axis in range(3):
    planes = np.moveaxis(hu, axis, 0)
    measured = np.flatnonzero(np.ptp(planes.reshape(len(planes), -1), axis=1))
    if measured.size:
      first, last = int(measured[0]), int(measured[-1])
      # A body that ends by itself grows from plane to plane. This one is there at once.
      low, high = (float((planes[end] > _BODY_HU).mean()) >= _PADDED for end in (first, last))
      kept = slice(first if low else 0, last + 1 if high else len(planes))
      hu = np.moveaxis(planes[kept], 0, axis)
  return hu


def _measure_sides(hu: np.ndarray, mm: np.ndarray) -> np.ndarray:
  """Measures the share of each side of the field of view that is body: [axis, low or high]."""
  body = ndimage.binary_opening(np.pad(hu > _BODY_HU, 1, mode="edge"), SIX_NEIGHBOURS)
  body = body[1:-1, 1:-1, 1:-1]
  return np.array(
    [
      [float(_open_plane(body.take(end, axis), np.delete(mm, axis)).mean()) for end in (0, -1)]
      for axis in range(3)
    ]
  )


def _open_plane(mask: np.ndarray, mm: np.ndarray) -> np.ndarray:
  """Returns the largest thick piece of a plane's mask [N, M], without holes."""
  filled = fill_plane_holes(mask[:, :, None])[:, :, 0]
  steps = max(1, round(_OPENED_MM / float(mm.min())))
  eroded = ndimage.binary_erosion(filled, _PLANE, steps, border_value=1)
  pieces, count = ndimage.label(eroded, _PLANE)
  if not count:
    return np.zeros_like(filled)
  kept = pieces == np.argmax(np.bincount(pieces[eroded]))
  opened: np.ndarray = ndimage.binary_dilation(kept, _PLANE, steps) & filled
  return opened


def _find_trunk(hu: np.ndarray, mm: np.ndarray, axis: int) -> _Trunk | None:
  """Finds the trunk in a scan that it crosses along an axis; None if there is nothing like it."""
  hu, mm = np.moveaxis(hu, axis, 2), np.append(np.delete(mm, axis), mm[axis])
  filled = fill_plane_holes(hu > _BODY_HU)
  steps, plane = max(1, round(_OPENED_MM / float(mm[:2].min()))), _PLANE[:, :, None]
  eroded = ndimage.binary_erosion(filled, plane, steps, border_value=1)
  if not eroded.any():
    return None
  inside = ndimage.binary_dilation(largest_component(eroded), plane, steps) & filled
  trunk = _Trunk(hu, inside, mm)
  return trunk if min(trunk.widths) > 0 else None


def _list_signs(find_trunk: FindTrunk, covered: np.ndarray) -> list[str]:
  """Lists what contradicts the canonical axes of a scan."""
  along = _find_other_axis(covered)
  if along is not None:
    trunk = find_trunk(along)
    with_spine = trunk and any(max(_find_spine(trunk, axis)) >= _MANY_SLICES for axis in (0, 1))
    if not with_spine and covered[2].max() > _FREE:
      return []
    body = f"the body runs along {'XYZ'[along]}, with air where head or feet would be"
    return [body, "so does the spine"] if with_spine else [body]
  if covered[:2].max() > _CROPPED or (trunk := find_trunk(2)) is None:
    return []
  width, depth = trunk.widths
  if min(width, depth) < _LEAST_MM[1] or max(width, depth) < _LEAST_MM[0]:
    return []
  if depth > _DEEPER * width and max(_find_spine(trunk, 0)) >= _MANY_SLICES:
    return ["the trunk is deeper than wide", "the spine lies at one side of it"]
  signs = []
  _, before = _find_spine(trunk, 1)
  if before >= _MANY_SLICES:
    signs.append("the spine lies in front")
  solid = _find_solid(trunk)
  if _has_lungs_below(trunk, solid):
    signs.append("the lungs lie at the lower end")
  if _has_liver_left(trunk, solid):
    signs.append("the liver lies on the left")
  return signs


def _find_other_axis(covered: np.ndarray) -> int | None:
  """Returns the axis along which a body runs, if that is plainly not the one from feet to head."""
  axis = int(covered.min(axis=1).argmax())
  # Where one end is free alone, as that of a head, arms may be cut at both sides.
  least = _CUT if covered[2].max() <= _FREE else 2 * _CUT
  is_plain = covered[axis].min() >= least and covered[2].min() <= _FREE
  return axis if axis != 2 and is_plain else None


def _find_spine(trunk: _Trunk, axis: int) -> tuple[float, float]:
  """Returns the shares of slices whose deep bone lies before and beyond the middle of an axis."""
  places, other = trunk.places[axis], trunk.places[1 - axis]
  silhouette = trunk.inside.any(axis=2)
  depth = ndimage.distance_transform_edt(silhouette, sampling=trunk.mm[:2])
  within = np.abs(other) <= _MIDDLE
  counted = (depth > _DEEP_MM) & (within[None, :] if axis == 0 else within[:, None])
  bone = trunk.inside & (trunk.hu > _BONE_HU) & counted[:, :, None]
  # From the middle of the trunk's area: its outline has an arm here and a fold there.
  weight = trunk.inside.sum(axis=(1 - axis, 2))
  middle = float(np.average(places, weights=weight))
  amount = bone.sum(axis=1 - axis)  # [axis, z]
  total = amount.sum(axis=0)
  centre = ((places - middle) @ amount) / np.maximum(total, 1)
  has_bone = total * trunk.mm[:2].prod() >= _LEAST_BONE_MM2
  sides = (has_bone & (centre < -_OFF_CENTRE)).mean(), (has_bone & (centre > _OFF_CENTRE)).mean()
  return float(sides[0]), float(sides[1])


def _erode(mask: np.ndarray, steps: int) -> np.ndarray:
  eroded: np.ndarray = ndimage.binary_erosion(mask, SIX_NEIGHBOURS, steps, border_value=1)
  return eroded


def _find_solid(trunk: _Trunk) -> np.ndarray:
  """Returns the inner voxels of solid organs and thick muscles."""
  smooth = ndimage.uniform_filter(trunk.hu, 3, mode="nearest")
  low, high = _SOLID_VOXEL_HU
  solid = (smooth > _SOLID_HU[0]) & (smooth < _SOLID_HU[1])
  solid &= (trunk.hu > low) & (trunk.hu < high)
  found: np.ndarray = _erode(solid, 2) & trunk.inside
  return found


def _find_lungs(trunk: _Trunk) -> np.ndarray:
  low, high = _LUNG_HU
  found: np.ndarray = _erode((trunk.hu > low) & (trunk.hu < high), 1) & trunk.inside
  return found


def _has_lungs_below(trunk: _Trunk, solid: np.ndarray) -> bool:
  height = trunk.hu.shape[2]
  lungs = _find_lungs(trunk)
  if height * trunk.mm[2] < _LEAST_HEIGHT_MM or trunk.measure_ml(lungs) < _LEAST_LUNG_ML:
    return False
  z = np.linspace(-1, 1, height)
  lung_place, solid_place = (
    float((mask.sum(axis=(0, 1)) @ z) / max(1, mask.sum())) for mask in (lungs, solid)
  )
  # Where the liver lies at the other end, it is no lung, but gas and foam below.
  return lung_place <= -_LUNG_END and solid_place <= _SOLID_END


def _has_liver_left(trunk: _Trunk, solid: np.ndarray) -> bool:
  if trunk.measure_ml(solid) < _LEAST_SOLID_ML:
    return False
  return float(np.average(trunk.places[0], weights=solid.sum(axis=(1, 2)))) <= -_SOLID_SIDE


def _name_other_part(find_trunk: FindTrunk, covered: np.ndarray) -> str:
  """Names the part of the body if it is plainly not the abdomen; else ''."""
  if covered[:2].max() > _CROPPED or (trunk := find_trunk(2)) is None:
    return ""
  values = trunk.hu[trunk.inside]
  bone, tissue = np.mean(values > 1.5 * _BONE_HU), np.mean(np.abs(values) < _SOLID_HU[1])
  if bone > _HEAD_BONE and tissue > 0.5 and max(trunk.widths) < _HEAD_MM:
    return f"{bone:.0%} of the body is bone, as in a head"
  area = np.maximum(trunk.inside.sum(axis=(0, 1)), 1)
  share = _find_lungs(trunk).sum(axis=(0, 1)) / area
  if trunk.hu.shape[2] * trunk.mm[2] >= _LEAST_HEIGHT_MM and share.min() > _CHEST_LUNG:
    return "lungs from the first slice to the last, as in a chest"
  return ""
