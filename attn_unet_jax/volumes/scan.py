"""Reads a scan from a NIfTI file, from a folder with DICOM, or from a .zip of such a folder."""

from __future__ import annotations

import collections
import dataclasses
import os
from pathlib import Path

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import is_zip, open_files
from attn_unet_jax.volumes.dicom.folder import is_hidden, refuse_special
from attn_unet_jax.volumes.dicom.header import NOT_DICOM
from attn_unet_jax.volumes.dicom.read import read_series
from attn_unet_jax.volumes.dicom.series import (
  FileSurvey,
  choose_series,
  count_skipped,
  survey_files,
)
from attn_unet_jax.volumes.dicom.signature import has_dicom_suffix, is_dicom
from attn_unet_jax.volumes.dicom.source import SourceSeries, read_source
from attn_unet_jax.volumes.dicom.studies import DicomListing, divide_folder
from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.nifti_folder import is_nifti
from attn_unet_jax.volumes.volume import Volume

NO_SCAN = "neither NIfTI nor DICOM"


@dataclasses.dataclass(frozen=True, eq=False)
class FoundScan:
  """A scan that can be read when its turn comes.

  Attributes:
    path: its file, folder or .zip.
    survey: what lies in the folder or .zip; None for a NIfTI file.
    series_uid: the series to read if there are several.
  """

  path: Path
  survey: FileSurvey | None = None
  series_uid: str | None = None

  def read(self, accept: Acceptance = NOTHING) -> Volume:
    """Reads it in HU on its native grid.

    Args:
      accept: doubts about the scan that the user accepts.

    Raises:
      UserError: the reasons of `read_scan`.
    """
    if self.survey is not None:
      return read_series(choose_series(self.survey, self.series_uid), accept).volume
    if self.series_uid is not None:
      raise UserError(f"{self.path}: a file, which has no DICOM series {self.series_uid} to choose")
    refuse_special(self.path)
    # Anonymised slices often have no suffix, and NIfTI's reader would only say that it is no NIfTI.
    if os.path.isfile(self.path) and _is_dicom_file(self.path):
      raise UserError(
        f"{self.path}: a single DICOM file; name the folder, or a .zip, of its series"
      )
    return read_nifti(self.path)

  def read_source(self) -> SourceSeries:
    """Reads what a mask in DICOM has to say about the series.

    Raises:
      UserError: the scan is no DICOM, or the reasons of `read_source`.
    """
    if self.survey is None:
      raise UserError(f"{self.path}: no DICOM, and a mask in DICOM refers to slices in DICOM")
    return read_source(choose_series(self.survey, self.series_uid))

  def count_skipped(self) -> collections.Counter[str]:
    """Counts the files in its folder or .zip that are not read, by kind."""
    if self.survey is None:
      return collections.Counter()
    try:
      return count_skipped(self.survey, choose_series(self.survey, self.series_uid))
    except UserError:  # told when the scan is read
      return self.survey.skipped


def is_dicom_scan(path: Path) -> bool:
  """Returns whether `read_scan` reads a path as DICOM: a folder or a .zip."""
  return os.path.isdir(path) or is_zip(path)


def open_scan(path: Path, *, series_uid: str | None = None) -> FoundScan:
  """Looks at a scan without reading its voxels.

  Args:
    path: a NIfTI file; or a folder or .zip that holds, at any depth, a CT series of DICOM slices.
    series_uid: the series to read if there are several.

  Raises:
    UserError: the folder or .zip cannot be read.
  """
  survey = survey_files(path) if is_dicom_scan(path) else None
  return FoundScan(path, survey, series_uid)


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
  return open_scan(path, series_uid=series_uid).read(accept)


def find_dicom_scans(folder: Path) -> DicomListing:
  """Finds the DICOM scans in a folder.

  If the folder itself holds DICOM files, it is one scan. Otherwise every .zip in it, and every
  folder in it that holds a CT series at any depth, is a scan; folders that share a series are one.

  Raises:
    UserError: the folder cannot be listed, or a zip and a folder share a name.
  """
  try:
    entries = sorted(folder.iterdir())
  except OSError as error:
    raise UserError(
      f"{folder}: cannot be listed ({error.strerror}); check its permissions"
    ) from None
  inside = [path for path in entries if not is_hidden(path.name)]
  nifti = [path for path in inside if is_nifti(path)]
  others = [path for path in inside if not (path.is_dir() or is_zip(path) or is_nifti(path))]
  if any(map(_may_be_slice, others)):
    survey = survey_files(folder)
    survey.skipped[NOT_DICOM] -= len(nifti)  # which are scans of their own
    return DicomListing({folder.resolve().name: survey}, collections.Counter())
  listing = divide_folder(folder)
  listing.skipped[NO_SCAN] += len(others)
  return listing


def _may_be_slice(path: Path) -> bool:
  # By its name also where it cannot be opened: a link that leads nowhere, a fifo.
  if has_dicom_suffix(path):
    return True
  try:
    return path.is_file() and _is_dicom_file(path)
  except UserError:
    return False


def _is_dicom_file(path: Path) -> bool:
  return any(is_dicom(stream) for _, stream in open_files([path]))
