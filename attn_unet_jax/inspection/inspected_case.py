"""Inspects one case: reads image and label, and finds whatever is wrong with either."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.drawing.contact_sheet import draw_largest_slice
from attn_unet_jax.drawing.planes import find_largest_slices
from attn_unet_jax.inspection import geometry, label_map
from attn_unet_jax.inspection.sources import CaseToInspect, ReadableVolume
from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.runtime.acceptance import Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import hounsfield
from attn_unet_jax.volumes.checks import check_pair, check_swapped
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.orientation import canonical_grid, to_canonical
from attn_unet_jax.volumes.placement import header_findings
from attn_unet_jax.volumes.pose import pose_findings
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.label_checks import SOFT_TISSUE_HU, find_flip_problem, measure_label

_MIN_SOFT_SHARE = 0.7  # of the pancreas; the rest is fat between its lobules, vessels and stents
_MAX_LABEL_VALUES = 300  # more than common atlases have, and far fewer than a scan


@dataclass
class InspectedCase:
  """A case after its inspection.

  Attributes:
    id: the case's name.
    findings: what is wrong with it, or good to know.
    figures: what was measured, for the report; JSON can hold it.
    digests: of the voxels of `image` and `label` on canonical axes.
    picture: of one slice, RGB uint8 [H, W, 3]; None if nothing could be read.
  """

  id: str
  findings: list[Finding] = field(default_factory=list)
  figures: dict[str, Any] = field(default_factory=dict)
  digests: dict[str, str] = field(default_factory=dict)
  picture: np.ndarray | None = None

  def has_kind(self, *kinds: str) -> bool:
    """Returns whether there is a finding of one of the kinds."""
    return any(finding.kind in kinds for finding in self.findings)


def inspect_case(
  subject: CaseToInspect, mapping: LabelMapping, options: DataOptions
) -> InspectedCase:
  """Reads a case and looks at everything; what is wrong becomes a finding and is not raised.

  Args:
    subject: the case to read.
    mapping: the meaning of the label's values.
    options: the options of the training to come, with its patch and its spacing.
  """
  case = InspectedCase(subject.id)
  image, label = _read_volume(subject.image, case), _read_volume(subject.label, case)
  # Otherwise a folder of labels would give a page of errors about Hounsfield units.
  if image and subject.may_be_labels and looks_like_labels(image.volume.array):
    image, label = None, image
    case.figures["taken_for"] = "label map"
  # Nothing else that was said of the two would be true.
  if image and label and (problem := _describe_swapped(image, label)):
    case.findings.append(Finding("error", "swapped", problem))
    return case
  if image:
    _inspect_image(case, image, options)
  if label:
    _inspect_label(case, label, mapping)
  if image and label:
    _inspect_pair(case, image, label, mapping)
  case.findings[:] = [_accept(one, options.acceptance) for one in case.findings]
  case.picture = _draw_picture(image, label, mapping)
  return case


def _accept(finding: Finding, accept: Acceptance) -> Finding:
  """Returns an error that the user accepts as a note; any other finding as it is."""
  if finding.severity != "error" or finding.kind not in accept:
    return finding
  return Finding("note", finding.kind, f"accepted: {finding.text}")


def looks_like_labels(array: np.ndarray) -> bool:
  """Returns whether a volume is a label map: few whole values from 0 up, in large patches."""
  if array.dtype.kind not in "iu" or array.min() != 0 or array.max() == 0:
    return False
  # In a label map neighbours are equal but at borders; the noise of CT makes them differ.
  equal = float((array[1:] == array[:-1]).mean()) if len(array) > 1 else 0.0
  return equal > 0.95 and len(np.unique(hounsfield.sample_voxels(array))) <= _MAX_LABEL_VALUES


class _OpenVolume(NamedTuple):
  """A volume that could be read.

  Attributes:
    volume: its voxels.
    name: its name in messages.
    file: its NIfTI file; None if it comes from DICOM or records.
  """

  volume: Volume
  name: str
  file: Path | None


def _describe_swapped(image: _OpenVolume, label: _OpenVolume) -> str:
  try:
    check_swapped(image.volume, label.volume, (image.name, label.name))
  except UserError as error:
    return str(error)
  return ""


def _read_volume(part: ReadableVolume | None, case: InspectedCase) -> _OpenVolume | None:
  if part is None:
    return None
  try:
    return _OpenVolume(part.read(), part.name, part.file)
  except UserError as error:
    case.findings.append(Finding("error", "unreadable", str(error)))
    return None


def _inspect_image(case: InspectedCase, image: _OpenVolume, options: DataOptions) -> None:
  volume, name, _ = image
  case.figures |= {"image": name, **hounsfield.measure_range(volume)}
  case.digests["image"] = _digest_voxels(volume)
  found = list(hounsfield.intensity_findings(volume, name))
  case.findings += found
  if not any(one.severity == "error" for one in found):  # else they are no HU, and no anatomy
    case.findings += pose_findings(volume, name)
  _inspect_geometry(case, image)
  patch, spacing = options.patch, options.spacing_mm
  case.findings += geometry.patch_findings(volume.grid, patch, spacing, name)
  case.findings += geometry.memory_findings(volume.grid, options, name)


def _inspect_label(case: InspectedCase, label: _OpenVolume, mapping: LabelMapping) -> None:
  volume, name, _ = label
  counts = label_map.count_values(volume.array)
  case.figures |= {"label": name, "label_values": counts, "ml": {}}
  case.digests["label"] = _digest_voxels(volume)
  if "image" not in case.figures:  # else the image's geometry is reported, and the pair's below
    _inspect_geometry(case, label)
  case.findings += label_map.value_findings(counts, mapping, name)
  # As training sees it: sides and directions below are the patient's.
  canonical = to_canonical(volume)
  if case.has_kind("label_values"):
    return  # an unknown value may be the organ, so its shape says nothing
  for organ, mask in _class_masks(canonical.array, mapping):
    case.figures["ml"][organ] = round(np.count_nonzero(mask) * volume.voxel_volume_ml, 2)
    case.findings += label_map.shape_findings(mask, canonical, organ, name)


def _inspect_pair(
  case: InspectedCase, image: _OpenVolume, label: _OpenVolume, mapping: LabelMapping
) -> None:
  try:
    note = check_pair(image.volume.grid, label.volume.grid, (image.name, label.name))
  except UserError as error:
    case.findings.append(Finding("error", "grids", str(error)))
    return
  if note:
    case.findings.append(Finding("note", "grids", note))
  if case.has_kind("values", "hounsfield", "label_values"):
    return  # without true HU, or the true classes, what lies under the label says nothing
  hu, values = to_canonical(image.volume).array, to_canonical(label.volume).array
  found = {organ: measure_label(hu, mask) for organ, mask in _class_masks(values, mapping)}
  case.figures["under_label"] = found
  case.findings += _tissue_findings(found, label.name)


def _tissue_findings(found: dict[str, dict[str, Any]], name: str) -> Iterator[Finding]:
  """Yields an error if a flip of the classes fits the image better, or a warning if none fits."""
  if not found:
    return
  # All classes of a file are flipped together, so they vote with their voxels.
  voxels = [one["label_voxels"] for one in found.values()]
  flips = next(iter(found.values()))["flip_scores"]
  scores = {
    flip: float(np.average([one["flip_scores"][flip] for one in found.values()], weights=voxels))
    for flip in flips
  }
  if problem := find_flip_problem(scores):
    yield Finding("error", "flipped", f"{name}: {problem}; flip it back, or correct its header")
  # Only of the pancreas is it known what it should look like. A flip explains a bad share already.
  soft = found.get("pancreas", {}).get("soft_tissue", 1.0)
  if soft < _MIN_SOFT_SHARE and not problem:
    figures = found["pancreas"]
    yield Finding(
      "warning",
      "tissue",
      f"{name}: {soft:.0%} of the pancreas lies in {SOFT_TISSUE_HU[0]}..{SOFT_TISSUE_HU[1]} HU "
      f"({figures['mean_hu']:.0f} +- {figures['sd_hu']:.0f}), nearly all of it should; shifted, or "
      "the label of another scan: look at it",
    )


def _class_masks(array: np.ndarray, mapping: LabelMapping) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the name and the mask of every class that has voxels."""
  for organ, values in zip(mapping.classes, mapping.values, strict=True):
    mask = np.isin(array, list(values))
    if mask.any():
      yield organ, mask


def _inspect_geometry(case: InspectedCase, one: _OpenVolume) -> None:
  canonical = canonical_grid(one.volume.grid)
  case.figures |= {
    "shape": list(canonical.shape),
    "spacing_mm": list(canonical.spacing),
    "field_mm": [round(size, 1) for size in canonical.field_mm],
    "orientation": one.volume.orientation,
  }
  case.findings += geometry.geometry_findings(one.volume.grid, one.name)
  if one.file:
    case.findings += header_findings(one.file)


def _digest_voxels(volume: Volume) -> str:
  """Digests the voxels on canonical axes, so the order of axes in the file does not matter."""
  array = to_canonical(volume).array
  digest = hashlib.sha256(repr(array.shape).encode())
  # As float32, since a copy of a scan may be stored with another type.
  for plane in array.T:
    digest.update(np.ascontiguousarray(plane, np.float32).tobytes())
  return digest.hexdigest()


def _draw_picture(
  image: _OpenVolume | None, label: _OpenVolume | None, mapping: LabelMapping
) -> np.ndarray | None:
  """Draws the slice with most of the classes, or the middle slice of an image without a label."""
  hu = to_canonical(image.volume) if image else None
  values = to_canonical(label.volume) if label else None
  if hu is not None and values is not None and values.shape != hu.shape:
    values = None  # a label on another grid cannot be drawn onto the image
  if values is None:
    return None if hu is None else draw_largest_slice(hu, None, hu.spacing)
  largest = find_largest_slices(_foreground_mask(values.array, mapping), 1)
  index = largest[0] if largest else values.shape[2] // 2
  one = slice(index, index + 1)
  # Of one slice, since looking up many classes in a whole scan takes long.
  classes = _index_classes(values.array[..., one], mapping)
  shown = None if hu is None else Volume(hu.array[..., one], hu.affine)
  return draw_largest_slice(shown, classes, values.spacing)


def _index_classes(array: np.ndarray, mapping: LabelMapping) -> np.ndarray:
  """Returns class indices from 1; where no class is, every other value but 0 counts as one more."""
  # An atlas may have more classes than uint8 has values.
  indices = np.zeros(array.shape, np.uint16)
  for index, values in enumerate(mapping.values, 1):
    indices[np.isin(array, list(values))] = index
  return indices if indices.any() else (array != 0) * np.uint16(1 + len(mapping.values))


def _foreground_mask(array: np.ndarray, mapping: LabelMapping) -> np.ndarray:
  """Returns the voxels of all classes; if there are none, those that are not 0."""
  classes = np.isin(array, list(frozenset().union(*mapping.values)))
  return classes if classes.any() else array != 0
