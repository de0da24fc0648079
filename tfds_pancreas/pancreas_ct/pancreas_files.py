"""Where the files of Pancreas-CT lie under one folder, however they were downloaded.

Scans are folders called PANCREAS_0001 at any depth, with DICOM files at any depth below:

  <manifest>/Pancreas-CT/PANCREAS_0001/11-24-2015-PANCREAS0001-Pancreas-18957/.../1-001.dcm
  DOI/PANCREAS_0001/<StudyInstanceUID>/<SeriesInstanceUID>/000000.dcm

Where there is no such folder (a flat download with UUIDs for names) the collection's own case
number is read from the series' patient id, and nothing else of it. Labels are files called
label0001.nii or label0001.nii.gz at any depth.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.read import (
  DicomSeries,
  DicomVolume,
  read_dicom,
  read_series,
  survey_files,
)
from tfds_pancreas.folders import walk_folders

# The archive of labels still has those of the two scans that were withdrawn.
CASES = 82
CHECK_LIST = (
  "Pancreas-CT must be downloaded by hand from https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU and "
  "unpacked into one folder, --manual_dir: "
  "(1) the scans, as the NBIA data retriever writes them: "
  "<manifest>/Pancreas-CT/PANCREAS_0001/STUDY/SERIES/1-001.dcm, or the older "
  "DOI/PANCREAS_0001/STUDY/SERIES/*.dcm, or all DICOM files flat; "
  "(2) the labels: TCIA_pancreas_labels-02-05-2017/label0001.nii.gz (or .nii), or beside the scans"
)
NO_CASE = "files of no known case"
_SCAN = re.compile(r"PANCREAS_(\d{4})")
_LABEL = re.compile(r"label(\d{4})\.nii(\.gz)?")
# A folder with one series in it, or a series found among other files.
CaseScan = Path | DicomSeries


@dataclass(frozen=True)
class PancreasCaseFiles:
  """The files found of one case; a good case has one scan and one label file.

  Attributes:
    damaged: what is wrong with files of the case that cannot be read.
  """

  id: str
  scans: tuple[CaseScan, ...]
  labels: tuple[Path, ...]
  damaged: tuple[str, ...] = ()

  @property
  def problem(self) -> str:
    """The files that are missing or there twice; '' for a good case."""
    number = self.id.removeprefix("PANCREAS_")
    wanted = [("scan", f"folder {self.id}", self.scans), ("label", f"label{number}", self.labels)]
    found = [_describe_count(kind, name, paths) for kind, name, paths in wanted if len(paths) != 1]
    # A file of no known case lacks neither scan nor label: it is damaged, and that is all.
    return "; ".join([*self.damaged, *(found if self.id != NO_CASE else ())])


def format_case_id(number: int) -> str:
  """Returns the id of a case number: 'PANCREAS_0007' for 7."""
  return f"PANCREAS_{number:04d}"


def find_pancreas_cases(root: str | Path) -> list[PancreasCaseFiles]:
  """Finds every case with a scan or a label under a folder, in the order of the ids.

  Raises:
    UserError: no scan at all, or no label at all; with a list of what belongs where.
  """
  root = Path(root)
  (scans, damaged), labels = find_scans(root), _find_by_folder(root)[1]
  missing = [name for name, found in (("scans", scans), ("labels", labels)) if not found]
  if missing:
    raise UserError(f"{root}: no {' and no '.join(missing)} of Pancreas-CT found. {CHECK_LIST}")
  cases = [
    PancreasCaseFiles(
      format_case_id(n),
      tuple(scans.get(n, ())),
      tuple(labels.get(n, ())),
      tuple(damaged.pop(format_case_id(n), ())),
    )
    for n in sorted({*scans, *labels})
  ]
  # What is left in `damaged` belongs to no case that was found. It makes bad cases of its own, so
  # that the build does not pass over it in silence.
  return cases + [
    PancreasCaseFiles(case, (), (), tuple(lines)) for case, lines in sorted(damaged.items())
  ]


def find_scans(root: Path) -> tuple[Mapping[int, Sequence[CaseScan]], dict[str, list[str]]]:
  """Finds the scans under a folder.

  Returns:
    the scans by case number, and what is wrong with damaged files by case id.
  """
  scans = _find_by_folder(root)[0]
  # Where folders tell the cases apart, a damaged file is found when its case is read.
  return (scans, {}) if scans else _find_by_patient(root)


def read_dicom_scan(scan: CaseScan, accept: Acceptance = NOTHING) -> DicomVolume:
  """Reads a scan that `find_scans` found.

  Args:
    scan: the scan.
    accept: doubts about the unit of its values that the user accepts.

  Raises:
    UserError: the series is not readable as one volume.
  """
  if isinstance(scan, DicomSeries):
    return read_series(scan, accept)
  return read_dicom(scan, accept=accept)


def _describe_count(kind: str, name: str, found: Sequence[CaseScan]) -> str:
  if not found:
    return f"no {kind} ({name})"
  return f"{len(found)} {kind}s: {', '.join(map(_name_scan, found))}; keep one"


def _name_scan(scan: CaseScan) -> str:
  return f"series {scan.uid}" if isinstance(scan, DicomSeries) else str(scan)


def _find_by_folder(
  root: Path,
) -> tuple[Mapping[int, list[CaseScan]], Mapping[int, list[Path]]]:
  """Finds scan folders and label files by case number."""
  scans: defaultdict[int, list[CaseScan]] = defaultdict(list)
  labels: defaultdict[int, list[Path]] = defaultdict(list)
  for folder, files in walk_folders(root):
    for name in files:
      if match := _LABEL.fullmatch(name):
        labels[int(match[1])].append(folder / name)
    match = _SCAN.fullmatch(folder.name)
    # Some unpackers put a folder into one of its own name.
    if match and not _SCAN.fullmatch(folder.parent.name):
      scans[int(match[1])].append(folder)
  return scans, labels


def _find_by_patient(
  root: Path,
) -> tuple[Mapping[int, list[CaseScan]], dict[str, list[str]]]:
  """Finds series by case number, and damaged files, with what is wrong with them, by case id."""
  scans: defaultdict[int, list[CaseScan]] = defaultdict(list)
  damaged: defaultdict[str, list[str]] = defaultdict(list)
  found = survey_files(root)
  for series in found.series:
    # One slice is enough: a series is of one patient.
    if number := _read_case_number(series.files[0]):
      scans[number].append(series)
  for file, problem in found.damaged.items():
    number = _read_case_number(file)
    damaged[format_case_id(number) if number else NO_CASE].append(problem)
  return scans, damaged


def _read_case_number(file: Path) -> int:
  """Reads the collection's case number from a file's patient id; 0 where it has none."""
  try:
    with damage_is_user_error(file):
      # No other tag of the patient is read, so none can reach a message or a record.
      tags = pydicom.dcmread(file, specific_tags=["PatientID"], stop_before_pixels=True)
  except UserError:
    return 0
  match = _SCAN.fullmatch(str(tags.get("PatientID", "")))
  return int(match[1]) if match else 0
