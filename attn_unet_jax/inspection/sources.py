"""Lists the cases of a path: a scan, a folder of scans, a training folder, or records."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.runtime.acceptance import NOTHING, REASONS, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.folder import HIDDEN
from attn_unet_jax.volumes.dicom.header import NOT_DICOM
from attn_unet_jax.volumes.dicom.read import read_series
from attn_unet_jax.volumes.dicom.series import FileSurvey, describe_skipped, survey_files
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.nifti_folder import (
  explain_channel_names,
  find_name_fault,
  is_nifti,
  nifti_stem,
  read_label_names,
)
from attn_unet_jax.volumes.scan import NO_SCAN, find_dicom_scans, is_dicom_scan, read_scan
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.records import open_records


@dataclasses.dataclass(frozen=True)
class ReadableVolume:
  """A volume that can be read when its turn comes.

  Attributes:
    name: its name in messages.
    read: reads it; may raise UserError.
    file: its NIfTI file; None if it comes from DICOM or records.
  """

  name: str
  read: Callable[[], Volume]
  file: Path | None = None


@dataclasses.dataclass(frozen=True)
class CaseToInspect:
  """A case to look at; one of image and label may be missing.

  Attributes:
    id: the case's name.
    image: its image.
    label: its label.
    may_be_labels: whether the image may be a label map, since nothing says that it is an image.
  """

  id: str
  image: ReadableVolume | None
  label: ReadableVolume | None = None
  may_be_labels: bool = False


@dataclasses.dataclass(frozen=True)
class InspectionInput:
  """A listing of what is to be inspected.

  Attributes:
    subjects: the cases.
    findings: what is wrong with the listing.
    label_names: name -> label value, if the data has such names.
  """

  subjects: list[CaseToInspect]
  findings: list[Finding]
  label_names: Mapping[str, int] | None = None


def list_cases_at(
  path: Path, labels: Path | None = None, accept: Acceptance = NOTHING
) -> InspectionInput:
  """Lists the cases of a file, a folder of scans, or a folder with imagesTr and labelsTr.

  Args:
    path: a NIfTI file, a DICOM folder or .zip, a folder of such scans, or a training folder.
    labels: the scan's label file, or a folder of labels with the names of the scans.
    accept: doubts about the unit of DICOM that the user accepts.

  Raises:
    UserError: there is nothing to look at.
  """
  if not path.exists():
    raise UserError(f"--input={path}: not found; give a scan, or a folder of scans or of training")
  findings: list[Finding] = []
  for_training = (path / "imagesTr").is_dir() or (path / "labelsTr").is_dir()
  if for_training:
    # Training reads nothing else from such a folder.
    scans = _find_nifti(path / "imagesTr", read_nifti, findings)
    masks: Path | None = labels or path / "labelsTr"
  else:
    scans, masks = _find_scans(path, findings, accept), labels
  found = _find_labels(masks, scans, findings) if masks else {}
  if for_training:
    findings += _name_findings([*scans.values(), *found.values()])
  subjects = [
    _build_case(case, scans, found, alone=masks is None) for case in sorted({*scans, *found})
  ]
  # Any other finding tells by itself why there is no case.
  if not subjects and {one.kind for one in findings} <= {"skipped"}:
    raise UserError(f"--input={path}: no .nii, .nii.gz or DICOM files in it")
  findings += [
    _partner_finding(one, scans, found) for one in subjects if masks and _is_incomplete(one)
  ]
  return InspectionInput(subjects, findings, _read_names(path, findings))


def list_records(dataset: str, data_dir: str) -> InspectionInput:
  """Lists the cases of a data set made by `tfds_pancreas.build`.

  Raises:
    UserError: the data set has not been built there.
  """
  # Read whatever they are: what is wrong with them becomes a finding.
  records = RecordDataset(open_records(dataset, data_dir), Judge(frozenset(REASONS)))
  subjects = [
    CaseToInspect(
      case,
      ReadableVolume(f"{dataset} {case} image", lambda case=case: records.load(case).image),  # type: ignore[misc]
      ReadableVolume(f"{dataset} {case} label", lambda case=case: records.load(case).label),  # type: ignore[misc]
    )
    for case in records.ids
  ]
  return InspectionInput(subjects, [], records.label_names)


def _build_case(
  case: str,
  scans: Mapping[str, ReadableVolume],
  masks: Mapping[str, ReadableVolume],
  *,
  alone: bool,
) -> CaseToInspect:
  image = scans.get(case)
  return CaseToInspect(
    case, image, masks.get(case), alone and image is not None and bool(image.file)
  )


def _is_incomplete(subject: CaseToInspect) -> bool:
  return subject.image is None or subject.label is None


def _name_findings(volumes: Iterable[ReadableVolume]) -> list[Finding]:
  # Predictions take any name, so that nothing is wrong with that of a scan alone.
  faults = [find_name_fault(one.file) for one in volumes if one.file]
  return [Finding("error", "file_name", fault) for fault in faults if fault]


def _partner_finding(
  subject: CaseToInspect, scans: Mapping[str, ReadableVolume], masks: Mapping[str, ReadableVolume]
) -> Finding:
  part, missing, others = (
    (subject.image, "label", masks) if subject.label is None else (subject.label, "image", scans)
  )
  assert part is not None
  # Names such as `case1_seg` for the label of `case1` are the commonest reason.
  like = [name for name in others if name.startswith(subject.id) or subject.id.startswith(name)]
  hint = f" (is it {others[like[0]].name}?)" if like else ""
  text = f"{part.name}: no {missing} of this name{hint}; add it, or remove this file"
  return Finding("error", "partner", text + explain_channel_names([subject.id], others))


def _read_names(path: Path, findings: list[Finding]) -> Mapping[str, int] | None:
  try:
    return read_label_names(path)
  except UserError as error:
    findings.append(Finding("error", "dataset_json", str(error)))
    return None


def _find_scans(
  path: Path, findings: list[Finding], accept: Acceptance
) -> dict[str, ReadableVolume]:
  """Finds every scan at a path, by its name."""
  if not path.is_dir():
    if is_dicom_scan(path):
      return _find_zipped_series(path, findings, accept)
    return {
      nifti_stem(path): ReadableVolume(str(path), partial(read_scan, path, accept=accept), path)
    }
  scans = _find_nifti(path, read_nifti, findings)
  try:
    dicom = find_dicom_scans(path)
  except UserError as error:
    findings.append(Finding("error", "unreadable", str(error)))
    return scans
  if line := describe_skipped(dicom.skipped):
    findings.append(Finding("note", "skipped", f"{path}: {line}"))
  files = dict(scans)
  for name, survey in dicom.scans.items():
    if name in files:
      text = f"{files[name].name}: {survey.path} has the same name; rename one of them"
      findings.append(Finding("error", "two_files", text))
      name += " (DICOM)"  # both are to be inspected
    scans |= _list_series(name, survey, findings, accept)
  if not scans and set(dicom.skipped) - {NOT_DICOM, NO_SCAN, HIDDEN}:
    text = f"{path}: DICOM, but no CT series in it; name a folder that holds one, or take it out"
    findings.append(Finding("warning", "no_ct", text))
  return scans


def _find_labels(
  path: Path, scans: Mapping[str, ReadableVolume], findings: list[Finding]
) -> dict[str, ReadableVolume]:
  """Finds labels, by the name of their scan."""
  if path.is_dir():
    return _find_nifti(path, read_label, findings)
  # One label file for one scan belongs to it, whatever it is called.
  name = next(iter(scans)) if len(scans) == 1 else nifti_stem(path)
  return {name: ReadableVolume(str(path), partial(read_label, path), path)}


def _find_nifti(
  folder: Path, read: Callable[[Path], Volume], findings: list[Finding]
) -> dict[str, ReadableVolume]:
  # `list_nifti_files` raises where two files share a name. Here the others are to be inspected too.
  found: dict[str, ReadableVolume] = {}
  if not folder.is_dir():
    return found
  for path in sorted(folder.iterdir()):
    if not is_nifti(path):
      continue  # a README or a dataset.json beside the scans
    name = nifti_stem(path)
    if name in found:
      text = f"{path}: {found[name].name} has the same name; remove one of them"
      findings.append(Finding("error", "two_files", text))
      continue
    found[name] = ReadableVolume(str(path), partial(read, path), path)
  return found


def _find_zipped_series(
  path: Path, findings: list[Finding], accept: Acceptance
) -> dict[str, ReadableVolume]:
  """Finds every CT series of a .zip, by its name."""
  try:
    return _list_series(path.stem, survey_files(path), findings, accept)
  except UserError as error:
    findings.append(Finding("error", "unreadable", str(error)))
    return {}


def _list_series(
  name: str, found: FileSurvey, findings: list[Finding], accept: Acceptance
) -> dict[str, ReadableVolume]:
  """Lists every CT series of a folder or .zip, by its name."""
  path, series = found.path, found.series
  findings += [Finding("error", "unreadable", text) for text in found.damaged.values()]
  if not series:
    text = f"{path}: DICOM, but no CT series in it; name a folder that holds one, or take it out"
    findings.append(Finding("warning", "no_ct", text))
  if line := describe_skipped(found.skipped):
    findings.append(Finding("note", "skipped", f"{path}: {line}"))
  if len(series) > 1:
    text = f"{path}: {len(series)} CT series; predict needs --series=UID to choose one"
    findings.append(Finding("note", "several_series", text))
  alone = len(series) == 1
  return {
    name if alone else f"{name} {one.uid}": ReadableVolume(
      str(path) if alone else f"{path} (series {one.uid}, {one.description})",
      # A default argument, since the loop's variable will be another series by then.
      lambda one=one: read_series(one, accept).volume,  # type: ignore[misc]
    )
    for one in series
  }
