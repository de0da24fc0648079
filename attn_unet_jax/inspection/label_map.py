"""Checks that a label map fits the mapping and looks like an organ's outline."""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.volumes.box import bounding_slices
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.volume import Volume

_MAX_SHOWN = 12  # of values and parts, in a message
_FAR_MM = 10.0  # specks nearer than this may be the end of a thin organ
_SPECK_SHARE, _SPECK_ML = 0.01, 0.1
# Healthy adults have about 40 to 170 ml. Beyond this wide range something else is labelled.
_PANCREAS_ML = (10.0, 300.0)


def count_values(labels: np.ndarray) -> dict[int, int]:
  """Counts the voxels of every value of an integer array [X, Y, Z]."""
  # Plane by plane: sorting a whole scan would take several times its memory.
  counts: dict[int, int] = {}
  for plane in labels.T:
    if plane.dtype == np.uint8:  # counting 256 values is much faster than sorting
      numbers = np.bincount(plane.ravel(), minlength=256)
      values = np.flatnonzero(numbers)
      numbers = numbers[values]
    else:
      values, numbers = np.unique(plane, return_counts=True)
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
      counts[value] = counts.get(value, 0) + number
  return dict(sorted(counts.items()))


def value_findings(
  counts: Mapping[int, int], mapping: LabelMapping, name: str
) -> Iterator[Finding]:
  """Yields the values that the mapping does not know, and the classes that are missing."""
  unknown = mapping.unknown_values(counts)
  if unknown:
    yield Finding("error", "label_values", _describe_unknown_values(counts, unknown, mapping, name))
  present = {
    name_: any(value in counts for value in values)
    for name_, values in zip(mapping.classes, mapping.values, strict=True)
    if values
  }
  if not any(present.values()):
    if not unknown:  # else the values are wrong, which says more than that no class is there
      yield Finding(
        "error",
        "empty_label",
        f"{name}: no voxel of {mapping}; training would learn that the scan has no organ: "
        "export the label again, or leave the case out",
      )
  elif absent := [name_ for name_, is_there in present.items() if not is_there]:
    yield Finding("note", "absent", f"{name}: no voxel of {', '.join(absent)}")


def shape_findings(mask: np.ndarray, label: Volume, organ: str, name: str) -> Iterator[Finding]:
  """Yields what is odd about the shape of one class.

  Args:
    mask: the voxels of the class, boolean [X, Y, Z], not empty.
    label: the label map on canonical axes.
    organ: the name of the class.
    name: the label's file.
  """
  box = bounding_slices(mask)
  assert box is not None, "the mask is empty"
  yield from _border_findings(mask, box, organ, name)
  yield from _part_findings(mask[box], box, label, organ, name)
  # Of other organs no range is known here: classes have the names that the user gives them.
  low, high = _PANCREAS_ML
  millilitres = np.count_nonzero(mask[box]) * label.voxel_volume_ml
  if organ == "pancreas" and not low <= millilitres <= high:
    yield Finding(
      "warning",
      "volume",
      f"{name}: {millilitres:.1f} ml of {organ}, {low:.0f} to {high:.0f} are usual; "
      "another organ, a part of one, or a wrong spacing",
    )


def _describe_unknown_values(
  counts: Mapping[int, int], unknown: list[int], mapping: LabelMapping, name: str
) -> str:
  shown = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:_MAX_SHOWN])
  more = f" and {len(unknown) - _MAX_SHOWN} more" if len(unknown) > _MAX_SHOWN else ""
  return (
    f"{name}: values {shown}{more} mean nothing in {mapping}; "
    f"{mapping.suggest_mappings(list(counts))}"
  )


def _border_findings(
  mask: np.ndarray, box: tuple[slice, ...], organ: str, name: str
) -> Iterator[Finding]:
  """Yields a note if the organ touches the border of the scan, where it may be cut off."""
  # Of the canonical axes, the lower end first.
  sides = ("left", "right", "back", "front", "lower end", "upper end")
  touched = []
  for axis, where in enumerate(box):
    for end, at in ((where.start == 0, 0), (where.stop == mask.shape[axis], -1)):
      if end:  # the bounding box reaches the border, so there are voxels on it
        voxels = np.count_nonzero(mask.take(at, axis))
        touched.append(f"{sides[2 * axis + (at == -1)]} ({voxels} voxels)")
  if touched:
    yield Finding(
      "note",
      "border",
      f"{name}: {organ} touches the {', '.join(touched)} of the scan; it may be cut off there",
    )


def _part_findings(
  mask: np.ndarray, box: tuple[slice, ...], label: Volume, organ: str, name: str
) -> Iterator[Finding]:
  """Yields how many large parts there are, and whether tiny ones lie far from all of them."""
  # 26-connected: parts that touch at a corner were drawn as one.
  parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
  if count < 2:
    return
  sizes = np.bincount(parts.ravel())
  sizes[0] = 0  # the background
  # At least one voxel, which may be more than 0.1 ml where slices are thick.
  limit = max(1, min(_SPECK_SHARE * sizes.max(), _SPECK_ML / label.voxel_volume_ml))
  tiny = np.flatnonzero((sizes > 0) & (sizes <= limit))
  large = np.sort(sizes[sizes > limit])[::-1]
  if large.size > 1:
    shown = ", ".join(f"{size * label.voxel_volume_ml:.1f}" for size in large[:_MAX_SHOWN])
    text = f"{name}: {organ} is in {large.size} parts that do not touch, of {shown} ml"
    yield Finding("note", "parts", text)
  if tiny.size and large.size:
    yield from _speck_findings(mask, parts, tiny, box, label, organ, name)


def _speck_findings(
  mask: np.ndarray,
  parts: np.ndarray,
  tiny: np.ndarray,
  box: tuple[slice, ...],
  label: Volume,
  organ: str,
  name: str,
) -> Iterator[Finding]:
  # From each speck's centre to the nearest voxel of the main parts' surface: for a few specks that
  # is much faster than a distance transform of the whole box.
  centres = np.array(ndimage.center_of_mass(mask, parts, tiny))
  main = mask & ~np.isin(parts, tiny)
  surface = np.argwhere(main & ~ndimage.binary_erosion(main))
  distance, _ = KDTree(surface * label.spacing).query(centres * label.spacing)
  far = np.flatnonzero(distance > _FAR_MM)
  if far.size:
    # Told in mm of the patient, which any viewer shows, and not in voxels of turned axes.
    worst = far[distance[far].argmax()]
    index = np.rint(centres[worst]).astype(int) + [where.start for where in box]
    place = label.affine[:3, :3] @ index + label.affine[:3, 3]
    voxels = int(np.isin(parts, tiny[far]).sum())
    yield Finding(
      "warning",
      "specks",
      f"{name}: tiny parts of {organ} ({far.size}, of {voxels} voxels in all) lie apart from the "
      f"organ, the farthest {distance[worst]:.0f} mm away at "
      f"({', '.join(f'{x:.0f}' for x in place)}) mm RAS+; erase them",
    )
