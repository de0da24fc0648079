"""The options of the service: the flags of `serve`."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.serving.archive import Archive

# As browsers write it: no path, not even a last slash, no capital letters.
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:_-]+")
_SHORTEST_TOKEN = 16
_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServiceOptions:
  """Where the service listens, whom it answers, and what a request may take.

  Attributes:
    host: the address to listen at.
    port: the port to listen at; 0: any that is free.
    token: what requests must know; '': nothing.
    origins: of the pages in browsers that may send requests, such as `https://viewer.example`.
    max_upload_mib: the largest body of a request, and the largest series of the archive.
    max_seconds: from the end of an upload to its mask.
    max_waiting: requests that wait while another one is computed.
    expiry_seconds: for how long a scan or an answer that nobody removes is kept.
    keep: a folder in which every mask stays, with its JSON; None: none does.
    archive: where series are read and masks are stored; None: nowhere.

  Raises:
    UserError: the service could be reached from other machines, and needs a token; the token is
      too short; or an origin is none.
  """

  host: str = "127.0.0.1"
  port: int = 8000
  token: str = ""
  origins: tuple[str, ...] = ()
  max_upload_mib: int = 2048
  max_seconds: float = 900.0
  max_waiting: int = 8
  expiry_seconds: float = 900.0
  keep: Path | None = None
  archive: Archive | None = None

  def __post_init__(self) -> None:
    """Checks that strangers are not answered, and that every origin can be one."""
    for origin in self.origins:
      if not _ORIGIN.fullmatch(origin):
        raise UserError(
          f"--allow_origins={origin}: write SCHEME://HOST or SCHEME://HOST:PORT alone, such as "
          "https://viewer.example"
        )
    if not self.token and not is_loopback(self.host):
      raise UserError(
        f"--host={self.host}: other machines could send scans; give --token_file=FILE with a "
        "token, or listen at 127.0.0.1"
      )
    if self.token and len(self.token) < _SHORTEST_TOKEN:
      raise UserError(
        f"--token_file: a token of {len(self.token)} characters can be guessed; write at least "
        f"{_SHORTEST_TOKEN}"
      )

  @property
  def max_bytes(self) -> int:
    """The largest body of a request, in bytes."""
    return self.max_upload_mib * _MEBIBYTE


def is_loopback(host: str) -> bool:
  """Returns whether a name or address reaches this machine alone."""
  try:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
  except ValueError:  # another name, which may lead anywhere
    return False


def read_secret(path: Path, flag: str) -> str:
  """Reads a token, or what proves an identity, from the one line of a file.

  Args:
    path: the file.
    flag: what names it, for the message.

  Raises:
    UserError: the file cannot be read, or has not one line of printable ASCII characters.
  """
  try:
    # It travels in a header, which has ASCII and ends with the line.
    text = path.read_text(encoding="ascii").strip()
  except OSError as error:
    raise UserError(f"{flag}={path}: cannot be read ({error.strerror})") from None
  except UnicodeDecodeError:
    text = ""
  if not text or not text.isprintable():
    raise UserError(f"{flag}={path}: must have one line of printable ASCII characters")
  return text
