"""One build of a data set at a time, and nothing left over from builds that were killed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.file_lock import LockHeldError, acquire_file_lock


@contextlib.contextmanager
def hold_build_lock(directory: Path) -> Iterator[None]:
  """Holds the right to build into a directory, after removing what killed builds left beside it.

  Args:
    directory: of one version of a data set, there or not.

  Raises:
    UserError: another process is building there.
  """
  directory.parent.mkdir(parents=True, exist_ok=True)
  # Beside the directory, which does not exist before TFDS renames its own.
  path = directory.with_name(f".{directory.name}.lock")
  try:
    lock = acquire_file_lock(path)
  except LockHeldError as holder:
    raise UserError(
      f"{path.parent}: another build of this data set is running ({holder}); wait until it has "
      "ended"
    ) from None
  try:
    # TFDS writes into `incomplete.XXXXXX_1.0.0` beside `1.0.0` and renames it at the end.
    for left_over in directory.parent.glob(f"incomplete.*_{directory.name}"):
      shutil.rmtree(left_over)
    yield
  finally:
    # Removed while the lock is held: afterwards the file may be that of the next build.
    path.unlink()
    os.close(lock)
