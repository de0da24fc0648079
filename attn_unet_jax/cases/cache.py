"""Cases on the working grid, kept on disk: a scan is blurred and resampled once, then only read.

A file per case, an ArrayRecord whose records are a header (JSON), the image, the label and the
foreground voxels that patches are centred on. Its name carries a digest of all that the content
depends on, so that runs of one recipe can share a folder and a changed scan, spacing or mapping is
prepared anew. It is written beside and renamed: processes and hosts that prepare at the same time
do not disturb each other.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import atomic_write, remove_unfinished_files

_DEAD_S = 24 * 3600.0  # writing a case takes seconds
_VERSION = 2  # to be raised when `prepare` gives other values
_WRITER = "group_size:1,zstd:1"  # reads five times as fast as the default, a tenth larger
_READER = "readahead_buffer_size:0,max_parallelism:0"  # for random access


def digest_recipe(*parts: object) -> str:
  """A name for what a prepared case depends on; every part by its `repr`."""
  return hashlib.sha256(repr((_VERSION, *parts)).encode()).hexdigest()[:16]


def load_or_prepare(
  folder: Path, case_id: str, name: str, prepare: Callable[[], WorkingCase]
) -> WorkingCase:
  """The case from its file in `folder`; if there is none, or it is damaged, `prepare`s and keeps.

  Args:
    folder: made if it is missing.
    case_id: the case.
    name: `digest` of what its content depends on.
    prepare: makes the case.

  Raises:
    UserError: the folder cannot be written.
  """
  path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', case_id)}.{name}.array_record"
  if path.exists():
    try:
      return _read_case(path)
    except (RuntimeError, ValueError, IndexError, KeyError, OSError) as error:
      logging.warning("%s: damaged (%s); its case is prepared again", path, format_error(error))
  case = prepare()
  try:
    _write_case(path, case)
  except (RuntimeError, OSError) as error:
    raise UserError(
      f"{folder}: prepared scans cannot be written there ({format_error(error)}); make room, or "
      "name another folder with --config.data.prepared=FOLDER"
    ) from error
  return case


def remove_left_over(folder: Path) -> None:
  """Removes what processes that were killed left half written; others may be preparing there."""
  remove_unfinished_files(folder, older_than_s=_DEAD_S)


def _read_case(path: Path) -> WorkingCase:
  reader = ArrayRecordReader(str(path), _READER)
  try:
    header, image, label, positions = reader.read([0, 1, 2, 3])
  finally:
    reader.close()
  about = json.loads(header)
  shape = about["shape"]
  return WorkingCase(
    about["id"],
    np.frombuffer(image, "<i2").reshape(shape),
    np.frombuffer(label, np.uint8).reshape(shape),
    about["mean"],
    about["sd"],
    np.frombuffer(positions, "<i4").reshape(-1, 3),
  )


def _write_case(path: Path, case: WorkingCase) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  about = {"id": case.id, "shape": case.image.shape, "mean": case.mean, "sd": case.sd}
  with atomic_write(path) as beside:
    writer = ArrayRecordWriter(str(beside), _WRITER)
    writer.write(json.dumps(about).encode())
    writer.write(case.image.astype("<i2", copy=False).tobytes())
    writer.write(case.label.tobytes())
    writer.write(case.centres.astype("<i4", copy=False).tobytes())
    writer.close()
