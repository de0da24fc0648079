"""The cases of a path: a scan, a folder of scans, a training folder, or records."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from attn_unet_jax.cases.dataset import RecordSet
from attn_unet_jax.inspection.finding import Finding
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.read import read_series, survey
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.nifti_folder import is_nifti, listed_names, nifti_stem
from attn_unet_jax.volumes.scan import dicom_scans, is_dicom_scan, read_scan
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.records import open_records


@dataclasses.dataclass(frozen=True)
class Part:
  """A readable volume: its name in messages, how it is read, its NIfTI file if it is one."""

  name: str
  read: Callable[[], Volume]
  file: Path | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
  """A case to look at; one of image and label may be missing.

  Attributes:
    lone: the image is a file that nothing declares an image: it may be a label map.
  """

  id: str
  image: Part | None
  label: Part | None = None
  lone: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
  """What lies at a path: cases, what is wrong with the listing, and the names of label values."""

  subjects: list[Subject]
  findings: list[Finding]
  label_names: Mapping[str, int] | None = None


def from_path(path: Path, labels: Path | None = None) -> Source:
  """The cases of a file, a folder of scans, or a folder with imagesTr and labelsTr.

  Args:
    path: a NIfTI file, a DICOM folder or .zip, a folder of such scans, or a training folder.
    labels: the scan's label file, or a folder of labels of the scans' names.

  Raises:
    UserError: nothing is there to look at.
  """
  if not path.exists():
    raise UserError(f"--input={path}: not found; give a scan, or a folder of scans or of training")
  findings: list[Finding] = []
  if (path / "imagesTr").is_dir() or (path / "labelsTr").is_dir():
    scans = _nifti(path / "imagesTr", read_nifti, findings)  # training reads nothing else
    masks: Path | None = labels or path / "labelsTr"
  else:
    scans, masks = _scans(path, findings), labels
  found = _masks(masks, scans, findings) if masks else {}
  subjects = [
    _subject(case, scans, found, alone=masks is None) for case in sorted({*scans, *found})
  ]
  if not subjects and not findings:
    raise UserError(f"--input={path}: no .nii, .nii.gz or DICOM files in it")
  findings += [_without_partner(one, scans, found) for one in subjects if masks and _alone(one)]
  return Source(subjects, findings, _names(path, findings))


def from_records(dataset: str, data_dir: str) -> Source:
  """The cases of a data set made by `tfds_pancreas.build`.

  Raises:
    UserError: it has not been built there.
  """
  records = RecordSet(open_records(dataset, data_dir))
  subjects = [
    Subject(
      case,
      Part(f"{dataset} {case} image", lambda case=case: records.load(case).image),  # type: ignore[misc]
      Part(f"{dataset} {case} label", lambda case=case: records.load(case).label),  # type: ignore[misc]
    )
    for case in records.ids
  ]
  return Source(subjects, [], records.label_names)


def _subject(
  case: str, scans: Mapping[str, Part], masks: Mapping[str, Part], *, alone: bool
) -> Subject:
  image = scans.get(case)
  return Subject(case, image, masks.get(case), alone and image is not None and bool(image.file))


def _alone(subject: Subject) -> bool:
  return subject.image is None or subject.label is None


def _without_partner(
  subject: Subject, scans: Mapping[str, Part], masks: Mapping[str, Part]
) -> Finding:
  part, missing, others = (
    (subject.image, "label", masks) if subject.label is None else (subject.label, "image", scans)
  )
  assert part is not None
  like = [name for name in others if name.startswith(subject.id) or subject.id.startswith(name)]
  hint = f" (is it {others[like[0]].name}?)" if like else ""
  return Finding(
    "error", "partner", f"{part.name}: no {missing} of this name{hint}; add it, or remove this file"
  )


def _names(path: Path, findings: list[Finding]) -> Mapping[str, int] | None:
  try:
    return listed_names(path)
  except UserError as error:
    findings.append(Finding("error", "dataset_json", str(error)))
    return None


def _scans(path: Path, findings: list[Finding]) -> dict[str, Part]:
  """Every scan at a path by its name."""
  if not path.is_dir():
    if is_dicom_scan(path):
      return _dicom(path.stem, path, findings)
    return {nifti_stem(path): Part(str(path), partial(read_scan, path), path)}
  scans = _nifti(path, read_nifti, findings)
  try:
    folders = dicom_scans(path)
  except UserError as error:
    findings.append(Finding("error", "unreadable", str(error)))
    folders = {}
  for name, folder in folders.items():
    scans |= _dicom(name, folder, findings)
  return scans


def _masks(path: Path, scans: Mapping[str, Part], findings: list[Finding]) -> dict[str, Part]:
  """Labels by the name of their scan."""
  if path.is_dir():
    return _nifti(path, read_label, findings)
  name = next(iter(scans)) if len(scans) == 1 else nifti_stem(path)
  return {name: Part(str(path), partial(read_label, path), path)}


def _nifti(
  folder: Path, read: Callable[[Path], Volume], findings: list[Finding]
) -> dict[str, Part]:
  found: dict[str, Part] = {}
  if not folder.is_dir():
    return found
  for path in sorted(folder.iterdir()):
    if not is_nifti(path):
      continue
    name = nifti_stem(path)
    if name in found:
      text = f"{path}: {found[name].name} has the same name; remove one of them"
      findings.append(Finding("error", "two_files", text))
      continue
    found[name] = Part(str(path), partial(read, path), path)
  return found


def _dicom(name: str, path: Path, findings: list[Finding]) -> dict[str, Part]:
  """Every CT series of a folder or .zip."""
  try:
    series, _, damaged = survey(path)
  except UserError as error:
    findings.append(Finding("error", "unreadable", str(error)))
    return {}
  findings += [Finding("error", "unreadable", text) for text in damaged.values()]
  if not series:
    text = f"{path}: DICOM, but no CT series in it; name a folder that holds one, or take it out"
    findings.append(Finding("warning", "no_ct", text))
  if len(series) > 1:
    text = f"{path}: {len(series)} CT series; predict needs --series=UID to choose one"
    findings.append(Finding("note", "several_series", text))
  alone = len(series) == 1
  return {
    name if alone else f"{name} {one.uid}": Part(
      str(path) if alone else f"{path} (series {one.uid}, {one.description})",
      lambda one=one: read_series(one).volume,  # type: ignore[misc]
    )
    for one in series
  }
