"""One build of a data set at a time, and nothing left over from those that were killed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
  """Holds the right to build into a directory; first clears what killed builds left beside it.

  TFDS writes into `incomplete.XXXXXX_1.0.0` beside `1.0.0` and renames at the end. The lock goes
  with the process that holds it, however that ends.

  Raises:
    UserError: another process is building there.
  """
  directory.parent.mkdir(parents=True, exist_ok=True)
  path = directory.with_name(f".{directory.name}.lock")
  lock = _take(path)
  try:
    for left_over in directory.parent.glob(f"incomplete.*_{directory.name}"):
      shutil.rmtree(left_over)
    yield
  finally:
    path.unlink()
    os.close(lock)


def _take(path: Path) -> int:
  """An open file that is locked and is the one at `path`, not one that was removed meanwhile."""
  while True:
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(lock)
      raise UserError(
        f"{path.parent}: another build of this data set is running; wait until it has ended"
      ) from None
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(lock), os.stat(path)):
        return lock
    os.close(lock)
