"""Locks a file, as a sign that one process alone works in a folder."""

import errno
import fcntl
import os
import socket
from pathlib import Path

# Some network file systems know no locks. Work goes on there without one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class LockHeldError(Exception):
  """An error that says who holds the lock already, as in 'process 12 on HOST'."""


def acquire_file_lock(path: Path) -> int:
  """Locks a file, made where it is missing, and writes into it which process holds it.

  Returns:
    the descriptor of the open file. The lock ends when it is closed, or when the process ends,
    however that happens.

  Raises:
    LockHeldError: another process holds the lock.
    OSError: the file cannot be made or locked.
  """
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      _lock_now(descriptor)
      if _is_file_at(descriptor, path):
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        return descriptor
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)


def _lock_now(descriptor: int) -> None:
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise LockHeldError(os.read(descriptor, 200).decode(errors="replace")) from None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise


def _is_file_at(descriptor: int, path: Path) -> bool:
  # A holder that removes its file at the end may do so between our open and our lock. We would
  # then hold a file that nobody else can find.
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False
