"""Reads a scan from a NIfTI file, from a folder with DICOM, or from a .zip of such a folder."""

from __future__ import annotations

from pathlib import Path

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import is_dicom, is_zip, list_files, open_files
from attn_unet_jax.volumes.dicom.read import read_dicom
from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.nifti_folder import is_nifti
from attn_unet_jax.volumes.volume import Volume


def is_dicom_scan(path: Path) -> bool:
  """Returns whether `read_scan` reads a path as DICOM: a folder or a .zip."""
  return path.is_dir() or is_zip(path)


def read_scan(path: Path, *, series_uid: str | None = None, accept: Acceptance = NOTHING) -> Volume:
  """Reads a scan in HU on its native grid.

  Args:
    path: a NIfTI file; or a folder or .zip that holds, at any depth, a CT series of DICOM slices.
    series_uid: the series to read if there are several.
    accept: doubts about the scan that the user accepts.

  Raises:
    UserError: the reasons of `read_nifti` and `read_dicom`; or the path is a single DICOM file; or
      a UID was given for a NIfTI file.
  """
  if is_dicom_scan(path):
    return read_dicom(path, series_uid=series_uid, accept=accept).volume
  if series_uid is not None:
    raise UserError(f"{path}: a file, which has no DICOM series {series_uid} to choose")
  # Anonymised slices often have no suffix, and NIfTI's reader would only say that it is no NIfTI.
  if path.is_file() and _is_dicom_file(path):
    raise UserError(f"{path}: a single DICOM file; name the folder, or a .zip, of its series")
  return read_nifti(path)


def find_dicom_scans(folder: Path) -> dict[str, Path]:
  """Finds the DICOM scans in a folder.

  If the folder itself holds slices, it is one scan. Otherwise every .zip in it, and every folder in
  it that holds DICOM at any depth, is a scan.

  Returns:
    name -> path.

  Raises:
    UserError: a file cannot be read, or a zip and a folder share a name.
  """
  inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
  if any(_is_dicom_file(path) for path in inside if path.is_file() and not is_nifti(path)):
    return {folder.resolve().name: folder}
  found: dict[str, Path] = {}
  for path in inside:
    if is_zip(path) or (path.is_dir() and any(map(_is_dicom_file, list_files(path)))):
      name = path.stem if is_zip(path) else path.name
      if name in found:
        raise UserError(f"{path}: {found[name].name} has the same name; rename one of them")
      found[name] = path
  return found


def _is_dicom_file(path: Path) -> bool:
  return any(is_dicom(stream) for _, stream in open_files([path]))
