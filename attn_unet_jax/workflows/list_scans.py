"""Lists the scans of a path and the masks that they get."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.series import describe_skipped, list_series
from attn_unet_jax.volumes.dicom.write_segmentation import import_highdicom
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.scan import FoundScan, find_dicom_scans, open_scan
from attn_unet_jax.workflows.scan_tables import (
  NamedScan,
  is_scan_pattern,
  is_scan_table,
  match_scans,
  read_scan_table,
)
from attn_unet_jax.workflows.write_mask import SUFFIXES, OutputFormat, is_dicom_format

# Of files, and a folder is not called so.
_FILE_SUFFIXES = (
  *(".nii", ".nii.gz", ".dcm", ".dicom", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh"),
  *(".hdr", ".img", ".zip", ".gz", ".png", ".jpg", ".tif", ".tiff", ".json", ".npy", ".npz"),
  *(".h5", ".stl"),
)
_MAX_LISTED = 10  # scans in a message
_MAX_NAME_BYTES = 255  # of every usual file system
_TEMPORARY_BYTES = len(f"..{'0' * 32}.part")  # what a file's name gets while it is written


class ScanListing(NamedTuple):
  """The scans of a path.

  Attributes:
    scans: each scan with the file of its mask.
    skipped: the number of files that are not read, by kind.
    broken: what cannot even be opened: its path, the file of its mask, and why.
  """

  scans: list[tuple[FoundScan, Path]]
  skipped: collections.Counter[str]
  broken: list[tuple[Path, Path, str]]


class _FoundScans(NamedTuple):
  """The scans of an input by name, what is skipped by kind, and the paths that do not open."""

  scans: dict[str, FoundScan]
  skipped: collections.Counter[str]
  broken: dict[str, tuple[Path, str]]


def list_scans(
  source: Path,
  output: Path,
  *,
  series: str | None = None,
  output_format: OutputFormat = "nifti",
) -> ScanListing:
  """Lists every scan with the file of its mask.

  Args:
    source: a scan, a folder of scans, a pattern of their names, or a CSV file that lists them.
    output: the mask's file, or the folder for the masks.
    series: the chosen DICOM series; a folder is then one scan, including its subfolders.
    output_format: the format of the masks.

  Raises:
    UserError: there is nothing to segment, or the output does not fit the input or the format; or
      the format needs a package that is not installed.
  """
  # Of `os`, which answers also where a name is longer than a file system takes.
  if not (os.path.exists(source) or is_scan_pattern(source)):
    raise UserError(f"--input={source}: not found; give a NIfTI file, a DICOM folder or its .zip")
  is_file = _is_mask_file(source, output, output_format)
  found = _find_scans(source, output, series)
  if is_dicom_format(output_format):
    found = _leave_dicom(found, output_format)
  # What does not open counts too: nobody knows of which of them the mask was to be.
  if is_file and len(found.scans) + len(found.broken) > 1:
    raise UserError(_describe_several(source, output, found))
  skipped, suffix = found.skipped, SUFFIXES[output_format][-1]
  pairs, broken = [], []
  for name, scan in found.scans.items():
    pairs.append((scan, output if is_file else output / f"{name}{suffix}"))
    skipped.update(scan.count_skipped())
  for name, (path, reason) in found.broken.items():
    broken.append((path, output if is_file else output / f"{name}{suffix}", reason))
  _check_targets([scan for scan, _ in pairs], [target for _, target in pairs], output)
  return ScanListing(pairs, skipped, broken)


def _is_mask_file(source: Path, output: Path, output_format: OutputFormat) -> bool:
  """Returns whether the output is a file and not a folder.

  Raises:
    UserError: it is neither a file of the format nor a folder, or a folder for a single file.
  """
  endings = " or ".join(SUFFIXES[output_format])
  # A folder may have any name.
  is_folder, is_single = os.path.isdir(output), not _may_be_many(source)
  if is_folder and is_single:
    raise UserError(f"--output={output}: a folder; name a file in it, since --input is a file")
  is_file = output.name.endswith(SUFFIXES[output_format]) and not is_folder
  if not is_folder and not is_file:
    if output.name.lower().endswith(_FILE_SUFFIXES):
      written = (
        f"--output_format={output_format} writes DICOM"
        if is_dicom_format(output_format)
        else "masks are written as NIfTI unless --output_format=dicom-seg or =rtstruct is given"
      )
      raise UserError(
        f"--output={output}: {written}; name a file that ends in {endings}, or a folder"
      )
    if is_single:
      raise UserError(f"--output={output}: must end in {endings}, since --input is a file")
  return is_file


def _may_be_many(source: Path) -> bool:
  return os.path.isdir(source) or is_scan_table(source) or is_scan_pattern(source)


def _find_scans(source: Path, output: Path, series: str | None) -> _FoundScans:
  """Finds the scans of `source` by name, and counts what is none."""
  is_table, is_pattern = is_scan_table(source), is_scan_pattern(source)
  if (is_table or is_pattern) and series is not None:
    raise UserError(
      f"--series={series}: is for one scan, and --input={source} may name many; a CSV file takes a "
      "series for each, in a column called series"
    )
  if is_table:
    return _open_scans(read_scan_table(source), collections.Counter())
  if is_pattern:
    return _open_scans(*match_scans(source, output))
  if series is not None or not os.path.isdir(source):
    # With a series a folder is one scan, however many lie in it.
    scan = open_scan(source, series_uid=series)
    # Resolved, since `.` is no name.
    return _FoundScans({source.resolve().name: scan}, collections.Counter(), {})
  return _list_folder(source)


def _open_scans(named: dict[str, NamedScan], skipped: collections.Counter[str]) -> _FoundScans:
  """Opens scans; one that does not open does not keep the others."""
  found = _FoundScans({}, skipped, {})
  for name, (path, series) in named.items():
    try:
      if not os.path.exists(path):
        raise UserError(f"{path}: not found")
      found.scans[name] = open_scan(path, series_uid=series)
    except UserError as error:
      found.broken[name] = path, str(error)
  return found


def _list_folder(source: Path) -> _FoundScans:
  """Finds the scans of a folder, or the one that the folder itself is."""
  dicom, files = find_dicom_scans(source), list_nifti_files(source, any_name=True)
  # Masks are named by their scans: one would overwrite the other.
  if twice := sorted(files.keys() & dicom.scans.keys()):
    raise UserError(f"--input={source}: two scans are called {twice[0]}; rename one of them")
  if not files and not dicom.scans:
    raise UserError(
      f"--input={source}: no .nii or .nii.gz files and no CT series in it"
      f"{_in_brackets(dicom.skipped)}"
    )
  scans = {name: FoundScan(path) for name, path in files.items()}
  scans |= {name: FoundScan(survey.path, survey) for name, survey in dicom.scans.items()}
  return _FoundScans(scans, dicom.skipped, {})


def _describe_several(source: Path, output: Path, found: _FoundScans) -> str:
  """Describes why one mask cannot be written for several scans."""
  scans, count = found.scans.values(), len(found.scans) + len(found.broken)
  surveys = [scan.survey for scan in scans if scan.survey is not None]
  # A folder with nothing but damage may hold slices of the one series that there is.
  lost = [one for one in surveys if not one.series]
  if lost and count - len(lost) == 1:
    return next(iter(lost[0].damaged.values()))
  text = f"--output={output}: must be a folder, since --input contains {count} scans"
  # A series without a UID cannot be chosen by it.
  if series := [one for survey in surveys for one in survey.series if one.uid]:
    return f"{text}: {list_series(source, series)}; or choose one by --series=UID"
  names = ", ".join(scan.path.name for scan in list(scans)[:_MAX_LISTED])
  return f"{text} ({names}); or name one of them by --input"


def _leave_dicom(found: _FoundScans, output_format: OutputFormat) -> _FoundScans:
  """Puts scans that are no DICOM, to which no mask in DICOM can refer, among those that are broken.

  Raises:
    UserError: there is no other scan, or the format needs a package that is not installed.
  """
  if output_format == "dicom-seg":
    import_highdicom()
  scans, broken = {}, dict(found.broken)
  for name, scan in found.scans.items():
    if scan.survey is not None:
      scans[name] = scan
      continue
    broken[name] = (
      scan.path,
      f"{scan.path}: is no DICOM, and --output_format={output_format} refers to slices in DICOM; "
      "give the DICOM series, or write the mask as NIfTI",
    )
  # One that is left may be segmented; with none, the reason of the first is that of all.
  if found.scans and not scans:
    raise UserError(next(iter(broken.values()))[1])
  return _FoundScans(scans, found.skipped, broken)


def _check_targets(scans: Sequence[FoundScan], targets: Sequence[Path], output: Path) -> None:
  """Refuses masks that would destroy a scan, or that a file system does not take."""
  # Resolved, since an output may be a link to a scan.
  sources = {file.resolve(): scan.path for scan in scans for file in _list_files(scan)}
  for target in targets:
    if len(os.fsencode(target.name)) + _TEMPORARY_BYTES > _MAX_NAME_BYTES:
      raise UserError(
        f"--output={output}: the mask's name {target.name} is longer than a file system takes; "
        "rename the scan, or name the mask itself by --output"
      )
    if scan := sources.get(target.resolve()):
      raise UserError(f"--output={output}: would overwrite the scan {scan}; choose another")


def _list_files(scan: FoundScan) -> list[Path]:
  """Lists the path of a scan and the files of its slices."""
  series = scan.survey.series if scan.survey is not None else []
  return [scan.path, *(file for one in series for file in one.files)]


def _in_brackets(skipped: collections.Counter[str]) -> str:
  text = describe_skipped(skipped)
  return f" ({text})" if text else ""
