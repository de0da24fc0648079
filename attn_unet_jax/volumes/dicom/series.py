"""Finds CT series: which files of a folder belong together, and what else lies there."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import FileOpener, list_files
from attn_unet_jax.volumes.dicom.folder import FileListing
from attn_unet_jax.volumes.dicom.header import FileHeader, read_header
from attn_unet_jax.volumes.dicom.outsiders import find_outsiders
from attn_unet_jax.volumes.dicom.strays import find_lost_slices

_MAX_LISTED = 10
_SINGLE_IMAGE = "CT series of a single image"


@dataclasses.dataclass(frozen=True)
class DicomSeries:
  """A CT series: the files that belong together.

  Attributes:
    uid: its SeriesInstanceUID; empty if the files carry none.
    files: its slices in no particular order, without localizers. A file in a zip has the path
      `scan.zip/inner/1.dcm`.
    description: technical terms only (number, slices, size, thickness, kernel), and nothing that
      a person wrote.
    num_slices: the number of slices, or of frames.
  """

  uid: str
  files: tuple[Path, ...]
  description: str
  num_slices: int

  @property
  def num_files(self) -> int:
    """The number of files."""
    return len(self.files)


class FileSurvey(NamedTuple):
  """The content of a folder or zip.

  Attributes:
    path: the folder or zip.
    series: the CT series, sorted by their first file.
    skipped: the number of other files, by kind.
    damaged: files that may belong to any series -> one line that says what is wrong.
  """

  path: Path
  series: list[DicomSeries]
  skipped: collections.Counter[str]
  damaged: dict[Path, str]


class FileHeaders(NamedTuple):
  """The headers of all files of a folder or zip.

  Attributes:
    path: the folder or zip.
    headers: the headers, and for a link that leads nowhere one that says so.
    skipped: the number of entries that are not opened, by kind.
    damaged: files that cannot be read -> one line that says what is wrong.
  """

  path: Path
  headers: list[FileHeader]
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
  return refuse_damaged(survey_files(path)).series


def choose_series(found: FileSurvey, uid: str | None = None) -> DicomSeries:
  """Chooses the only CT series of a folder or a zip, or the one with a SeriesInstanceUID.

  A series of a single image beside one of several is a scout or a test shot, and is skipped.

  Args:
    found: what lies there.
    uid: the UID; None chooses the only series.

  Raises:
    UserError: a file is damaged and might belong to any series; or there is no series, there are
      several and none is chosen, or none has that UID. The message lists those that there are.
  """
  series = refuse_damaged(found).series
  if not series:
    skipped = describe_skipped(found.skipped) or "skipped: nothing"
    raise UserError(
      f"{found.path}: no CT series in it ({skipped}); name the folder or .zip that holds a CT "
      "series"
    )
  chosen = [one for one in series if uid in (None, one.uid)]
  if uid is None and len(chosen) > 1:
    stacks = [one for one in chosen if one.num_slices > 1]
    chosen = stacks if len(stacks) == 1 else chosen
  if len(chosen) == 1:
    return chosen[0]
  listed = list_series(found.path, series)
  problem = f"{len(series)} CT series, one is needed" if uid is None else f"no one series {uid}"
  raise UserError(
    f"{found.path}: {problem}: {listed}; choose one by its UID (predict: --series=UID), or name "
    "the folder that holds only it"
  )


def list_series(path: Path, series: Sequence[DicomSeries]) -> str:
  """Lists series of a folder by UID, description and place, for a message."""
  listed = "; ".join(
    f"{one.uid or 'no UID'} ({_describe_location(path, one)})" for one in series[:_MAX_LISTED]
  )
  return listed + (f"; and {len(series) - _MAX_LISTED} more" if len(series) > _MAX_LISTED else "")


def describe_skipped(skipped: collections.Counter[str]) -> str:
  """Counts what was skipped by kind, in one line; '' if it is nothing."""
  counted = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()) if count)
  return counted and f"skipped: {counted}"


def count_skipped(found: FileSurvey, chosen: DicomSeries) -> collections.Counter[str]:
  """Counts the files that are not read where one series is chosen, by kind."""
  skipped = found.skipped.copy()
  for one in found.series:
    if one is not chosen:
      kind = _SINGLE_IMAGE if one.num_slices == 1 else "of another CT series"
      skipped[kind] += one.num_files
  return skipped


def survey_files(path: Path) -> FileSurvey:
  """Looks at every file at any depth of a folder, or in a zip.

  Raises:
    UserError: the path is neither, or the zip is not safe.
  """
  return survey_headers(read_headers(path, list_files(path)))


def read_headers(path: Path, listing: FileListing) -> FileHeaders:
  """Reads what every file of a folder or zip is."""
  broken = [FileHeader(file, "link that leads nowhere") for file in listing.broken]
  found = FileHeaders(path, broken, listing.skipped, dict(listing.damaged))
  with FileOpener() as opener:
    for file in listing.files:
      try:
        with opener.open(file) as stream:
          found.headers.append(read_header(file, stream))
      except UserError as error:
        found.damaged[file] = str(error)
  return found


def survey_headers(found: FileHeaders) -> FileSurvey:
  """Finds the series among files, and those files that may be missing in one."""
  images = [one for one in found.headers if not one.kind]
  others = [one for one in found.headers if one.kind]
  damaged = dict(found.damaged)
  for file in find_lost_slices(
    [one.file for one in others if not one.is_dicom], [one.file for one in images]
  ):
    damaged[file] = (
      f"{file}: no DICOM, and called as the slices are: a slice that was lost; copy or export it "
      "again, or rename it if it is none"
    )
  groups = _group_by_series(images)
  damaged |= find_outsiders(groups, others)
  series = [
    _build_series(uid, members)
    for (uid, _), members in groups.items()
    if not any(one.file in damaged for one in members)
  ]
  skipped = found.skipped + collections.Counter(
    one.kind for one in others if one.file not in damaged
  )
  return FileSurvey(found.path, sorted(series, key=lambda one: one.files), skipped, damaged)


def refuse_damaged(found: FileSurvey) -> FileSurvey:
  """Refuses a folder with damaged files.

  Raises:
    UserError: without such a file a series might be read with a slice missing at its end, where no
      gap would show it.
  """
  for problem in found.damaged.values():
    more = f" (and {len(found.damaged) - 1} more such files)" if len(found.damaged) > 1 else ""
    raise UserError(problem + more)
  return found


def _group_by_series(
  images: Iterable[FileHeader],
) -> dict[tuple[str, Path | None], list[FileHeader]]:
  groups: dict[tuple[str, Path | None], list[FileHeader]] = {}
  for one in images:
    # Anonymised files may have lost their UID. Then those of one folder are taken for a series.
    uid = one.series_uid
    groups.setdefault((uid, None if uid else one.file.parent), []).append(one)
  return groups


def _describe_location(path: Path, series: DicomSeries) -> str:
  folder = Path(os.path.relpath(series.files[0].parent, path)).as_posix()
  return series.description if folder == "." else f"{series.description}, in {folder}"


def _build_series(uid: str, members: Sequence[FileHeader]) -> DicomSeries:
  num_slices = sum(one.num_slices for one in members)
  files = tuple(one.file for one in members)
  return DicomSeries(uid, files, _describe_series(members[0], num_slices), num_slices)


def _describe_series(one: FileHeader, num_slices: int) -> str:
  columns, rows = one.size
  words = [f"{num_slices} slices of {columns}x{rows}"]
  if one.series_number is not None:
    words.insert(0, f"series {one.series_number}")
  if one.thickness_mm is not None:
    words.append(f"thickness {one.thickness_mm:g} mm")
  if one.kernel:
    words.append(f"kernel {one.kernel}")
  return ", ".join(words)
