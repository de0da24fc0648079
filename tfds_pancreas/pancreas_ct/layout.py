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

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.read import (
  DicomSeries,
  DicomVolume,
  read_dicom,
  read_series,
  survey_files,
)
from attn_unet_jax.volumes.dicom.series import damage_is_user_error
from tfds_pancreas.folders import walk

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
Scan = Path | DicomSeries


@dataclass(frozen=True)
class CaseFiles:
  """What was found of one case: right is one scan (a folder or a series) and one label file.

  Attributes:
    damaged: what is wrong with files of the case that cannot be read.
  """

  id: str
  scans: tuple[Scan, ...]
  labels: tuple[Path, ...]
  damaged: tuple[str, ...] = ()

  @property
  def problem(self) -> str:
    """What is missing or there twice, with the files; '' where nothing is."""
    number = self.id.removeprefix("PANCREAS_")
    wanted = [("scan", f"folder {self.id}", self.scans), ("label", f"label{number}", self.labels)]
    found = [_problem(kind, name, paths) for kind, name, paths in wanted if len(paths) != 1]
    return "; ".join([*self.damaged, *(found if self.id != NO_CASE else ())])


def case_id(number: int) -> str:
  """7 -> 'PANCREAS_0007'."""
  return f"PANCREAS_{number:04d}"


def find_cases(root: str | Path) -> list[CaseFiles]:
  """Every case of which there is a scan or a label under a folder, in the order of the ids.

  Raises:
    UserError: no scan at all, or no label at all; with a list of what belongs where.
  """
  root = Path(root)
  (scans, damaged), labels = find_scans(root), _walk(root)[1]
  missing = [name for name, found in (("scans", scans), ("labels", labels)) if not found]
  if missing:
    raise UserError(f"{root}: no {' and no '.join(missing)} of Pancreas-CT found. {CHECK_LIST}")
  cases = [
    CaseFiles(
      case_id(n),
      tuple(scans.get(n, ())),
      tuple(labels.get(n, ())),
      tuple(damaged.pop(case_id(n), ())),
    )
    for n in sorted({*scans, *labels})
  ]
  return cases + [CaseFiles(case, (), (), tuple(lines)) for case, lines in sorted(damaged.items())]


def find_scans(root: Path) -> tuple[Mapping[int, Sequence[Scan]], dict[str, list[str]]]:
  """The scans under a folder by their case number; what is wrong with damaged files, by case id.

  Where folders tell the cases apart, a damaged file is found when its case is read.
  """
  scans = _walk(root)[0]
  return (scans, {}) if scans else _by_patient(root)


def read_scan(scan: Scan) -> DicomVolume:
  """Reads what `find_cases` found.

  Raises:
    UserError: the series is not readable as one volume.
  """
  return read_series(scan) if isinstance(scan, DicomSeries) else read_dicom(scan)


def _problem(kind: str, name: str, found: tuple[Scan, ...]) -> str:
  if not found:
    return f"no {kind} ({name})"
  return f"{len(found)} {kind}s: {', '.join(map(_name, found))}; keep one"


def _name(scan: Scan) -> str:
  return f"series {scan.uid}" if isinstance(scan, DicomSeries) else str(scan)


def _walk(root: Path) -> tuple[Mapping[int, list[Scan]], Mapping[int, list[Path]]]:
  """Scan folders and label files by case number."""
  scans: defaultdict[int, list[Scan]] = defaultdict(list)
  labels: defaultdict[int, list[Path]] = defaultdict(list)
  for place, files in walk(root):
    for name in files:
      if match := _LABEL.fullmatch(name):
        labels[int(match[1])].append(place / name)
    match = _SCAN.fullmatch(place.name)
    # Some unpackers put a folder into one of the same name.
    if match and not _SCAN.fullmatch(place.parent.name):
      scans[int(match[1])].append(place)
  return scans, labels


def _by_patient(root: Path) -> tuple[Mapping[int, list[Scan]], dict[str, list[str]]]:
  """Series by case number; damaged files, with what is wrong with them, by case id."""
  scans: defaultdict[int, list[Scan]] = defaultdict(list)
  damaged: defaultdict[str, list[str]] = defaultdict(list)
  found = survey_files(root)
  for series in found.series:
    if number := _number(series.files[0]):
      scans[number].append(series)
  for file, problem in found.damaged.items():
    number = _number(file)
    damaged[case_id(number) if number else NO_CASE].append(problem)
  return scans, damaged


def _number(file: Path) -> int:
  """The collection's case number from a file's patient id; 0 where it has none of that kind."""
  try:
    with damage_is_user_error(file):
      tags = pydicom.dcmread(file, specific_tags=["PatientID"], stop_before_pixels=True)
  except UserError:
    return 0
  match = _SCAN.fullmatch(str(tags.get("PatientID", "")))
  return int(match[1]) if match else 0
