"""What made a DICOM file of ours, and how such a file is saved."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom

from attn_unet_jax import __version__
from attn_unet_jax.runtime.errors import WriteError
from attn_unet_jax.runtime.files import atomic_write

MANUFACTURER = "The attn_unet_jax authors"
MODEL = "attn_unet_jax"
VERSION = __version__
SERIES_DESCRIPTION = "Automatic segmentation, not reviewed"


@contextlib.contextmanager
def skip_value_checks() -> Iterator[None]:
  """Lets values of slices be repeated as they are, and keeps warnings that quote them quiet.

  UIDs with a leading zero in a part are not allowed, and common. A reference must have them too.
  """
  with pydicom.config.disable_value_validation(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield


def save_dataset(path: Path, dataset: pydicom.Dataset) -> None:
  """Writes a data set at once, and makes missing folders.

  Raises:
    WriteError: the file cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
      # With the preamble and the meta information, without which it would be no DICOM file.
      pydicom.dcmwrite(temporary, dataset, enforce_file_format=True)
  except OSError as error:
    raise WriteError(path, error, "name another path") from error
