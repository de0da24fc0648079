"""Divides a folder of DICOM into scans: a scan is a series, or a folder in which one is chosen.

Scanners, archives and discs put the files of one series into one folder or into many, and the
series of one patient side by side or each into a folder of its own. So the folders in a folder are
scans of their own only as far as no series lies in two of them.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import is_zip, list_files
from attn_unet_jax.volumes.dicom.folder import FileListing, list_folder
from attn_unet_jax.volumes.dicom.header import FileHeader
from attn_unet_jax.volumes.dicom.outsiders import list_scan_uids
from attn_unet_jax.volumes.dicom.series import (
  DicomSeries,
  FileHeaders,
  FileSurvey,
  read_headers,
  survey_headers,
)


class _SeriesPart(NamedTuple):
  """What of a series lies in one place.

  Attributes:
    places: those of its slices.
    stated: the frames of reference that they state, and the studies.
  """

  places: set[Hashable]
  stated: list[set[str]]


class DicomListing(NamedTuple):
  """The DICOM scans of a folder.

  Attributes:
    scans: name -> what lies in the folder or .zip of that scan.
    skipped: the number of files in folders that hold no CT series, by kind.
  """

  scans: dict[str, FileSurvey]
  skipped: collections.Counter[str]


def divide_folder(folder: Path) -> DicomListing:
  """Finds the scans among the folders and .zips of a folder.

  Raises:
    UserError: a folder and a .zip share a name.
  """
  # In one listing, so that a folder which a link leads to as well counts once.
  listing = list_folder(folder)
  parts = [read_headers(path, part) for path, part in _divide_listing(folder, listing).items()]
  surveys = [_survey_together(folder, group) for group in _link_parts(parts)]
  entries = sorted([*listing.files, *listing.broken, *listing.damaged])
  zips = [path for path in entries if path.parent == folder and is_zip(path)]
  packed = [_read_zip_headers(path) for path in zips]
  _mark_divided_series(parts, packed)
  surveys += [survey_headers(one) for one in packed]
  found = DicomListing({}, listing.skipped)
  for one in surveys:
    # A damaged file may be all that is left of a scan.
    if one.series or one.damaged:
      name = _name_scan(folder, one, found.scans)
      if name in found.scans:
        raise UserError(f"{one.path}: {found.scans[name].path.name} has the same name; rename one")
      found.scans[name] = one
    else:
      found.skipped.update(one.skipped)
  return found


def _divide_listing(folder: Path, listing: FileListing) -> dict[Path, FileListing]:
  """Divides a listing by the folders that lie directly in the folder."""
  parts: dict[Path, FileListing] = {}

  def part_of(path: Path) -> FileListing:
    """Returns the listing of the folder, directly in `folder`, that a path lies in."""
    top = folder / path.relative_to(folder).parts[0]
    return parts.setdefault(top, FileListing([], collections.Counter(), [], {}))

  for path in listing.files:
    if path.parent != folder:
      part_of(path).files.append(path)
  for path in listing.broken:
    if path.parent != folder:
      part_of(path).broken.append(path)
  for path, problem in listing.damaged.items():
    # What lies beside the folders is a slice of none of them.
    if path.parent != folder or path.is_dir():
      part_of(path).damaged[path] = problem
  return dict(sorted(parts.items()))


def _name_scan(folder: Path, one: FileSurvey, taken: Collection[str]) -> str:
  name = one.path.stem if is_zip(one.path) else one.path.resolve().name
  if one.path == folder and name in taken:  # several scans that lie in several folders each
    return one.series[0].files[0].relative_to(folder).parts[0]
  return name


def _read_zip_headers(path: Path) -> FileHeaders:
  try:
    return read_headers(path, list_files(path))
  except UserError as error:
    # Told when the scan's turn comes: a bad scan must not stop the others.
    return FileHeaders(path, [], collections.Counter(), {path: str(error)})


def _mark_divided_series(folders: Sequence[FileHeaders], zips: Sequence[FileHeaders]) -> None:
  """Marks the .zips that hold a part of a series, the rest of which lies elsewhere."""
  # Folders are read together, so they count as one place.
  holders = [("the folders", _list_slices(folders))]
  holders += [(one.path.name, _list_slices([one])) for one in zips]
  for part, (name, own) in zip(zips, holders[1:], strict=True):
    for other, theirs in holders:
      if divided := _find_divided(own, theirs):
        part.damaged[part.path] = (
          f"{part.path}: series {divided[0]} lies in {name} and in {other}, one scan; unpack "
          "them into one folder"
        )


def _list_slices(parts: Iterable[FileHeaders]) -> dict[str, _SeriesPart]:
  """Lists the slices of each series."""
  members: dict[str, list[FileHeader]] = {}
  for one in (header for part in parts for header in part.headers):
    if one.series_uid and not one.is_companion:
      members.setdefault(one.series_uid, []).append(one)
  return {
    uid: _SeriesPart({_find_place(one) for one in images}, list_scan_uids(images))
    for uid, images in members.items()
  }


def _find_place(one: FileHeader) -> Hashable:
  return one.file if one.place is None else tuple(one.place.position.tolist())


def _find_divided(some: Mapping[str, _SeriesPart], others: Mapping[str, _SeriesPart]) -> list[str]:
  """Finds the series of which two places hold different slices."""
  return [uid for uid in some if uid in others and _hold_different_slices(some[uid], others[uid])]


def _hold_different_slices(one: _SeriesPart, other: _SeriesPart) -> bool:
  # Anonymisers may give every patient one UID: then the studies differ, or the frames of reference.
  for mine, theirs in zip(one.stated, other.stated, strict=True):
    if mine and theirs and not mine & theirs:
      return False
  # Where one holds all that the other one has, that is a copy: an unpacked .zip, or, where the
  # studies have one UID too, a scan of another patient.
  return not (one.places <= other.places or other.places <= one.places)


def _link_parts(parts: Sequence[FileHeaders]) -> list[list[FileHeaders]]:
  """Joins folders that share a series, or that hold single images of another one's study."""
  groups: list[tuple[dict[str, _SeriesPart], list[FileHeaders]]] = []
  for part in parts:
    slices, members = _list_slices([part]), [part]
    apart = []
    for group in groups:
      if _find_divided(slices, group[0]):
        members = [*group[1], *members]
      else:
        apart.append(group)
    groups = [*apart, (_list_slices(members), members)]
  return _add_single_images([members for _, members in groups])


def _add_single_images(groups: list[list[FileHeaders]]) -> list[list[FileHeaders]]:
  """Adds folders of single images, such as a scout that does not say so, to the study's scan."""
  stacks = [group for group in groups if _has_stack(group)]
  rest = []
  for group in groups:
    if group in stacks:
      continue
    studies = {one.study_uid for one in _images_of(group)} - {""}
    home = next(
      (stack for stack in stacks if studies & {one.study_uid for one in _images_of(stack)}), None
    )
    if home is None:
      rest.append(group)
    else:
      home.extend(group)
  return sorted(stacks + rest, key=lambda group: group[0].path)


def _images_of(group: Iterable[FileHeaders]) -> list[FileHeader]:
  return [one for part in group for one in part.headers if not one.kind]


def _has_stack(group: Iterable[FileHeaders]) -> bool:
  counts: collections.Counter[object] = collections.Counter()
  for one in _images_of(group):
    counts[one.series_uid or one.file.parent] += one.num_slices
  return any(count > 1 for count in counts.values())


def _survey_together(folder: Path, parts: Sequence[FileHeaders]) -> FileSurvey:
  """Surveys several folders as one."""
  if len(parts) == 1:
    return survey_headers(parts[0])
  found = FileHeaders(folder, [], collections.Counter(), {})
  for part in parts:
    found.headers.extend(part.headers)
    found.skipped.update(part.skipped)
    found.damaged.update(part.damaged)
  survey = survey_headers(found)
  stacks = [one for one in survey.series if one.num_slices > 1]
  homes = [part.path for part in parts if any(_lies_in(part.path, one) for one in stacks)]
  # Named by the folder with the slices; by the folder above where the slices lie in several.
  return survey._replace(path=homes[0]) if len(homes) == 1 else survey


def _lies_in(folder: Path, series: DicomSeries) -> bool:
  return any(file.is_relative_to(folder) for file in series.files)
