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

from attn_unet_jax.errors import UserError
from attn_unet_jax.volumes.dicom import DicomVolume, Series, find_series, read_dicom, read_series
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
_SCAN = re.compile(r"PANCREAS_(\d{4})")
_LABEL = re.compile(r"label(\d{4})\.nii(\.gz)?")
Scan = Path | Series


@dataclass(frozen=True)
class CaseFiles:
  """What was found of one case: right is one scan (a folder or a series) and one label file."""

  id: str
  scans: tuple[Scan, ...]
  labels: tuple[Path, ...]

  @property
  def problem(self) -> str:
    """What is missing or there twice, with the files; '' where nothing is."""
    number = self.id.removeprefix("PANCREAS_")
    wanted = [("scan", f"folder {self.id}", self.scans), ("label", f"label{number}", self.labels)]
    found = [_problem(kind, name, paths) for kind, name, paths in wanted if len(paths) != 1]
    return "; ".join(found)


def case_id(number: int) -> str:
  """7 -> 'PANCREAS_0007'."""
  return f"PANCREAS_{number:04d}"


def find_cases(root: str | Path) -> list[CaseFiles]:
  """Every case of which there is a scan or a label under a folder, in the order of the ids.

  Raises:
    UserError: no scan at all, or no label at all; with a list of what belongs where.
  """
  root = Path(root)
  scans, labels = find_scans(root), _walk(root)[1]
  missing = [name for name, found in (("scans", scans), ("labels", labels)) if not found]
  if missing:
    raise UserError(f"{root}: no {' and no '.join(missing)} of Pancreas-CT found. {CHECK_LIST}")
  numbers = sorted({*scans, *labels})
  return [CaseFiles(case_id(n), tuple(scans.get(n, ())), tuple(labels.get(n, ()))) for n in numbers]


def find_scans(root: Path) -> Mapping[int, Sequence[Scan]]:
  """The scans under a folder by their case number."""
  return _walk(root)[0] or _by_patient(root)


def read_scan(scan: Scan) -> DicomVolume:
  """Reads what `find_cases` found.

  Raises:
    UserError: the series is not readable as one volume.
  """
  return read_series(scan) if isinstance(scan, Series) else read_dicom(scan)


def _problem(kind: str, name: str, found: tuple[Scan, ...]) -> str:
  if not found:
    return f"no {kind} ({name})"
  return f"{len(found)} {kind}s: {', '.join(map(_name, found))}; keep one"


def _name(scan: Scan) -> str:
  return f"series {scan.uid}" if isinstance(scan, Series) else str(scan)


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


def _by_patient(root: Path) -> Mapping[int, list[Scan]]:
  scans: Mapping[int, list[Scan]] = defaultdict(list)
  for series in find_series(root):
    tags = pydicom.dcmread(series.files[0], specific_tags=["PatientID"], stop_before_pixels=True)
    if match := _SCAN.fullmatch(str(tags.get("PatientID", ""))):
      scans[int(match[1])].append(series)
  return scans
