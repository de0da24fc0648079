"""Finds CT series: which files of a folder belong together, and what else lies there.

Only the tags named here are read. None of them identifies a patient: no name, birth date, patient
id, nor free text such as the series description. So nothing of that kind reaches a message or a
log.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pydicom

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.files import check_deflated_size, is_dicom, list_files, open_files

# SOP classes (DICOM PS3.4 B.5): CT image, Enhanced CT, and the latter converted from the former.
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_DICOMDIR = "1.2.840.10008.1.3.10"  # the table of contents that a disc from a clinic has
_HEADER_TAGS = [
  *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber"),
  *("Rows", "Columns", "NumberOfFrames", "SliceThickness", "ConvolutionKernel"),
]
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAX_LISTED = 10


@dataclasses.dataclass(frozen=True)
class DicomSeries:
  """A CT series: the files that belong together.

  Attributes:
    uid: its SeriesInstanceUID; empty if the files carry none.
    files: its slices in no particular order, without localizers. A file in a zip has the path
      `scan.zip/inner/1.dcm`.
    description: technical terms only (number, slices, size, thickness, kernel), and nothing that
      a person wrote.
  """

  uid: str
  files: tuple[Path, ...]
  description: str

  @property
  def num_files(self) -> int:
    """The number of files."""
    return len(self.files)


class FileSurvey(NamedTuple):
  """The content of a folder or zip.

  Attributes:
    series: the CT series, sorted by their first file.
    skipped: the number of other files, by kind.
    damaged: files that may belong to any series -> one line that says what is wrong.
  """

  series: list[DicomSeries]
  skipped: collections.Counter[str]
  damaged: dict[Path, str]


def find_series(path: Path) -> list[DicomSeries]:
  """Finds every CT series at any depth of a folder, or in a zip.

  Files that are no DICOM, other modalities, localizers and secondary captures are skipped.

  Args:
    path: a folder or a .zip.

  Returns:
    the series, sorted by their first file; an empty list if there is none.

  Raises:
    UserError: the path is neither, the zip is not safe, or a file is damaged and so might belong to
      any series.
  """
  return _refuse_damaged(survey_files(path)).series


def choose_series(path: Path, uid: str | None = None) -> DicomSeries:
  """Chooses the only CT series in a folder or a zip, or the one with a SeriesInstanceUID.

  Args:
    path: the folder or .zip.
    uid: the UID; None chooses the only series.

  Raises:
    UserError: the reasons of `find_series`; or there is no series, there are several and none is
      chosen, or none has that UID. The message lists the series that there are.
  """
  series, skipped, _ = _refuse_damaged(survey_files(path))
  if not series:
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
    raise UserError(
      f"{path}: no CT series in it (skipped: {found or 'nothing'}); name the folder or .zip that "
      "holds a CT series"
    )
  chosen = [one for one in series if uid in (None, one.uid)]
  if len(chosen) == 1:
    return chosen[0]
  listed = "; ".join(
    f"{one.uid or 'no UID'} ({_describe_location(path, one)})" for one in series[:_MAX_LISTED]
  )
  more = f"; and {len(series) - _MAX_LISTED} more" if len(series) > _MAX_LISTED else ""
  problem = f"{len(series)} CT series, one is needed" if uid is None else f"no one series {uid}"
  raise UserError(
    f"{path}: {problem}: {listed}{more}; choose one by its UID (predict: --series=UID), or name "
    "the folder that holds only it"
  )


def _describe_location(path: Path, series: DicomSeries) -> str:
  folder = series.files[0].parent.relative_to(path).as_posix()
  return series.description if folder == "." else f"{series.description}, in {folder}"


def survey_files(path: Path) -> FileSurvey:
  """Looks at every file at any depth of a folder, or in a zip.

  Raises:
    UserError: the path is neither, or the zip is not safe.
  """
  groups: dict[tuple[str, Path | None], list[tuple[Path, pydicom.Dataset]]] = {}
  found = FileSurvey([], collections.Counter(), {})
  for file, stream in open_files(list_files(path)):
    try:
      kind, header = _classify_file(file, stream)
    except UserError as error:
      found.damaged[file] = str(error)
      continue
    if header is None:
      found.skipped[kind] += 1
    else:
      uid = str(header.get("SeriesInstanceUID") or "")
      # Anonymised files may have lost their UID. Then those of one folder are taken for a series.
      groups.setdefault((uid, None if uid else file.parent), []).append((file, header))
  found.series.extend(_build_series(uid, members) for (uid, _), members in groups.items())
  found.series.sort(key=lambda one: one.files)
  return found


def _refuse_damaged(found: FileSurvey) -> FileSurvey:
  # Without the damaged file a series might be read with a slice missing at its end, where no gap
  # would show it.
  for problem in found.damaged.values():
    raise UserError(problem)
  return found


def _build_series(uid: str, members: list[tuple[Path, pydicom.Dataset]]) -> DicomSeries:
  files = tuple(file for file, _ in members)
  with damage_is_user_error(files[0]):
    slices = sum(int(header.get("NumberOfFrames") or 1) for _, header in members)
    return DicomSeries(uid, files, _describe_series(members[0][1], slices))


def _describe_series(header: pydicom.Dataset, slices: int) -> str:
  words = [f"{slices} slices of {header.Columns}x{header.Rows}"]
  if header.get("SeriesNumber") is not None:
    words.insert(0, f"series {int(header.SeriesNumber)}")
  if header.get("SliceThickness") is not None:
    words.append(f"thickness {float(header.SliceThickness):g} mm")
  if kernel := header.get("ConvolutionKernel"):
    words.append(f"kernel {kernel if isinstance(kernel, str) else '/'.join(kernel)}")
  return ", ".join(words)


def _classify_file(file: Path, stream: BinaryIO) -> tuple[str, pydicom.Dataset | None]:
  """Returns the kind of a file, and its header if it is an image of a CT series.

  Raises:
    UserError: it is DICOM, but cut off before it says what it is.
  """
  if not is_dicom(stream):
    if file.suffix.lower() in _DICOM_SUFFIXES:  # a slice that is lost, and not a text beside them
      raise UserError(
        f"{file}: does not begin as DICOM does, it is empty, truncated or another format; "
        "copy or export the file again, or take it out of the folder"
      )
    return "not DICOM", None
  check_deflated_size(file, stream)
  with damage_is_user_error(file):
    header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
    other = _other_kind(file, header)
    if other is None and not (header.get("Rows") and header.get("Columns")):
      raise UserError(f"{file}: truncated or damaged, it has no Rows; copy or export it again")
  return other or "CT", None if other else header


def _other_kind(file: Path, header: pydicom.Dataset) -> str | None:
  """Returns the kind of a file that holds no slices of a CT series; None if it holds some."""
  # Some anonymisers remove the SOP class from the data set. The meta information repeats it.
  kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
  if kind == _DICOMDIR:
    return "DICOMDIR"
  if not header.get("Modality"):
    raise UserError(f"{file}: truncated or damaged, it has no Modality; copy or export it again")
  if header.Modality != "CT":
    return f"of modality {header.Modality}"
  # The scout view, which shares the series' UID with some scanners (DICOM PS3.3 C.8.2.1.1.1).
  if "LOCALIZER" in (header.get("ImageType") or ()):
    return "localizer"
  if kind not in ("", _CT_IMAGE, *_ENHANCED_CT):
    return "CT capture or report"
  return None
