"""Reads which scans a CSV file or a pattern names, and what their masks are called."""

from __future__ import annotations

import collections
import csv
import glob
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.home import expand_home
from attn_unet_jax.volumes.nifti_folder import is_nifti, nifti_stem
from attn_unet_jax.volumes.scan import NO_SCAN, is_dicom_scan

_INPUT_COLUMNS = ("input", "image")
_WILDCARDS = "*?["


class NamedScan(NamedTuple):
  """A scan that a table or a pattern names.

  Attributes:
    path: its file, folder or .zip, which may be missing.
    series_uid: the DICOM series to read, if there are several.
  """

  path: Path
  series_uid: str | None = None


def is_scan_table(source: Path) -> bool:
  """Returns whether an input is a CSV file of scans."""
  return source.name.lower().endswith(".csv") and os.path.isfile(source)


def is_scan_pattern(source: Path) -> bool:
  """Returns whether an input is a pattern, such as `scans/*.nii.gz`."""
  # A file or folder of that very name comes first: names may contain brackets.
  return any(sign in str(source) for sign in _WILDCARDS) and not os.path.exists(source)


def read_scan_table(path: Path) -> dict[str, NamedScan]:
  """Reads the scans of a CSV file by the names of their masks.

  The column `input` (or `image`) names the scan, relative to the file's own folder. `output`, if
  there is such a column, names the mask, and `series` the DICOM series; both may be empty.

  Raises:
    UserError: the file is not such a table, or two scans would have one mask.
  """
  rows = _read_rows(path)
  column = next((name for name in _INPUT_COLUMNS if name in rows[0][1]), None)
  if column is None:
    raise UserError(
      f"--input={path}: no column {' or '.join(_INPUT_COLUMNS)}, only "
      f"{', '.join(rows[0][1])}; name the column of the scans so"
    )
  found: dict[str, NamedScan] = {}
  lines: dict[str, int] = {}
  for line, row in rows:
    text = row.get(column, "")
    if not text:
      raise UserError(f"--input={path}, line {line}: names no scan; fill in the column {column}")
    # Relative to the table, so that it may be used from any folder.
    scan = NamedScan(path.parent / expand_home(text), row.get("series") or None)
    name = _choose_name(path, line, row.get("output", ""), scan.path)
    if name in found:
      raise UserError(
        f"--input={path}: lines {lines[name]} and {line} would both have the mask {name}; name "
        "their masks in a column called output"
      )
    found[name], lines[name] = scan, line
  return found


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
  """Reads the rows of a CSV file with their line numbers, without the empty ones."""
  try:
    # A spreadsheet may begin the file with a mark of its encoding.
    text = path.read_bytes().decode("utf-8-sig")
    first = text.partition("\n")[0]
    # Spreadsheets separate by semicolons where numbers have a decimal comma.
    separator = next((sign for sign in (",", ";", "\t") if sign in first), ",")
    # Line breaks are left to `csv`, which knows those within quotes; an open quote is an error.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = [name.strip().lower() for name in next(reader, [])]
    rows = []
    for fields in reader:
      values = [value.strip() for value in fields]
      if any(values):
        # A row may lack the last fields, which are then empty. Its line is that of an editor.
        rows.append((reader.line_num, dict(zip(header, values, strict=False))))
  except OSError as error:
    raise UserError(f"--input={path}: cannot be read ({error.strerror})") from None
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(
      f"--input={path}: not readable as CSV ({error}); save it as CSV in UTF-8"
    ) from None
  if not rows:
    raise UserError(
      f"--input={path}: no scans in it; give a header with input, and a line per scan"
    )
  return rows


def _choose_name(table: Path, line: int, output: str, scan: Path) -> str:
  """Returns the name of a mask: the table's, or that of the scan."""
  if not output:
    return name_scan(scan)
  suffix = next((end for end in (".nii.gz", ".nii", ".dcm") if output.endswith(end)), "")
  name = output.removesuffix(suffix)
  if any(sign in name for sign in (os.sep, "\\", "\0")) or name in ("", ".", ".."):
    raise UserError(
      f"--input={table}, line {line}: output={output}: give the mask's name alone; the folder is "
      "that of --output"
    )
  return name


def name_scan(path: Path) -> str:
  """Returns the name of a scan's mask: that of its file or folder, without its suffix."""
  if os.path.isdir(path):
    return path.resolve().name
  # Of `.nii.gz` two suffixes go, of `.zip` one.
  return path.stem if is_dicom_scan(path) else nifti_stem(path)


class MatchedScans(NamedTuple):
  """The scans that a pattern matches, by the names of their masks, and what else, by kind."""

  scans: dict[str, NamedScan]
  skipped: collections.Counter[str]


def match_scans(pattern: Path, output: Path) -> MatchedScans:
  """Finds the scans that a pattern matches; `**` stands for folders at any depth.

  What lies in the folder `output`, which the pattern may reach, is none: masks of an earlier start.

  NIfTI files, folders and .zip files are scans. Scans that are called alike, such as
  `p1/ct.nii.gz` and `p2/ct.nii.gz`, are told apart by their folders: `p1_ct` and `p2_ct`.

  Raises:
    UserError: the pattern matches no scan, or two scans would have one mask.
  """
  made = output.resolve()
  matched = [
    path
    # The order of `glob` is the file system's.
    for text in sorted(glob.glob(str(pattern), recursive=True))
    if made not in ((path := Path(text)).resolve(), *path.resolve().parents)
  ]
  scans = [path for path in matched if is_nifti(path) or is_dicom_scan(path)]
  if not scans:
    others = f" but {len(matched)} other files or folders" if matched else ""
    raise UserError(
      f"--input={pattern}: no NIfTI file, folder or .zip is called so{others}; a DICOM scan is "
      "named by its folder"
    )
  names = _name_apart(scans)
  if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
    raise UserError(
      f"--input={pattern}: two scans would have the mask {twice[0]}; list the scans in a CSV file "
      "with the columns input and output"
    )
  skipped = collections.Counter({NO_SCAN: len(matched) - len(scans)})
  # The plus drops kinds of which there are none.
  return MatchedScans(dict(zip(names, map(NamedScan, scans), strict=True)), +skipped)


def _name_apart(scans: Iterable[Path]) -> list[str]:
  """Names scans, those that are called alike with the folders in which they differ."""
  scans = list(scans)
  names = [name_scan(path) for path in scans]
  if len(set(names)) == len(names):
    return names
  shared = len(os.path.commonpath([path.parent for path in scans]))
  # All of them, and not only those that collide: a name must not depend on who else is there.
  folders = [str(path.parent)[shared:].strip(os.sep).replace(os.sep, "_") for path in scans]
  return [
    f"{folder}_{name}" if folder else name for folder, name in zip(folders, names, strict=True)
  ]
