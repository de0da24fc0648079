"""A cache of prepared cases on disk: a scan is blurred and resampled once and read afterwards.

Each case is an ArrayRecord file of four records: a header (JSON), the image, the label and the
foreground voxels on which patches are centred. The file name contains a digest of everything that
the content depends on. Runs of one recipe can therefore share a folder, and a changed scan, spacing
or mapping leads to a new file. A file is written under a temporary name and then renamed, so that
processes and hosts can prepare cases at the same time.
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

# Writing a case takes seconds, so that the process that left so old a file is surely dead.
_DEAD_S = 24 * 3600.0
# To be raised whenever `prepare_case` gives other values, or refuses what it did not: older files
# are then ignored.
_VERSION = 5
_WRITER = "group_size:1,zstd:1"  # reads five times as fast as the default, a tenth larger
_READER = "readahead_buffer_size:0,max_parallelism:0"  # for random access


def digest_recipe(*parts: object) -> str:
  """Returns a hexadecimal digest of what a prepared case depends on, each part by its `repr`."""
  return hashlib.sha256(repr((_VERSION, *parts)).encode()).hexdigest()[:16]


def load_or_prepare(
  folder: Path, case_id: str, name: str, prepare: Callable[[], WorkingCase]
) -> WorkingCase:
  """Loads a case from its file in `folder`, or prepares it and writes that file.

  A damaged file is replaced.

  Args:
    folder: created if it is missing.
    case_id: the case.
    name: the `digest_recipe` of what its content depends on.
    prepare: prepares the case.

  Raises:
    UserError: the folder cannot be written.
  """
  # A case id may hold characters that are not allowed in a file name, such as a slash.
  path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', case_id)}.{name}.array_record"
  if path.exists():
    try:
      return _read_case(path)
    # Damage may show while records are read, while the header is parsed or when sizes do not fit.
    # None of it is fatal, since the case can be prepared again.
    except (RuntimeError, ValueError, IndexError, KeyError, OSError) as error:
      logging.warning(
        "%s: the file is damaged (%s); preparing its case again", path, format_error(error)
      )
  case = prepare()
  try:
    _write_case(path, case)
  except (RuntimeError, OSError) as error:
    raise UserError(
      f"{folder}: cannot write prepared scans there ({format_error(error)}); free some space, or "
      "name another folder with --config.data.prepared=FOLDER"
    ) from error
  return case


def remove_left_over(folder: Path) -> None:
  """Removes unfinished files that killed processes left in the folder."""
  # Only old ones: other runs may be preparing cases in a shared folder right now.
  remove_unfinished_files(folder, older_than_s=_DEAD_S)


def _read_case(path: Path) -> WorkingCase:
  reader = ArrayRecordReader(str(path), _READER)
  try:
    header, image, label, positions = reader.read([0, 1, 2, 3])
  finally:
    reader.close()
  about = json.loads(header)
  shape = about["shape"]
  # The file is little-endian on every host, so that all of them can share it.
  return WorkingCase(
    about["id"],
    # Files of earlier versions do not say it: all of them hold HU.
    np.frombuffer(image, about.get("dtype", "<i2")).reshape(shape),
    np.frombuffer(label, np.uint8).reshape(shape),
    about["mean"],
    about["sd"],
    np.frombuffer(positions, "<i4").reshape(-1, 3),
  )


def _write_case(path: Path, case: WorkingCase) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  # HU, or the materials of a case to paint on.
  dtype = "|u1" if case.image.dtype == np.uint8 else "<i2"
  about = {
    "id": case.id,
    "shape": case.image.shape,
    "dtype": dtype,
    "mean": case.mean,
    "sd": case.sd,
  }
  with atomic_write(path) as beside:
    writer = ArrayRecordWriter(str(beside), _WRITER)
    writer.write(json.dumps(about).encode())
    writer.write(case.image.astype(dtype, copy=False).tobytes())
    writer.write(case.label.tobytes())
    writer.write(case.centres.astype("<i4", copy=False).tobytes())
    # Before the file gets its name: ArrayRecord writes its index at the end.
    writer.close()
