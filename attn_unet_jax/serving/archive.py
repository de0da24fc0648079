"""Reads series from a DICOM archive (PACS), and stores masks in it, by DICOMweb.

QIDO-RS finds the study of a series, WADO-RS reads its slices, STOW-RS stores an instance: DICOM
PS3.18, sections 10.6, 10.4 and 10.5.
"""

import email.message
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.deadline import check_deadline
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.serving.errors import RequestError

_TIMEOUT_S = 60.0  # without a byte
_MAX_JSON_BYTES, _PIECE_BYTES = 1 << 24, 1 << 20
# DICOM PS3.5, section 9.1, which also limits the length.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_MAX_UID = 64
# The tags of StudyInstanceUID, FailedSOPSequence and FailureReason.
_STUDY_UID, _FAILED, _REASON = "0020000D", "00081198", "00081197"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  """Follows the archive nowhere, since the header that proves who asks would go there as well."""

  def redirect_request(self, *_: Any) -> None:
    """Returns no request, by which the redirection is an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Archive:
  """A DICOM archive.

  Attributes:
    url: the root of its DICOMweb services, such as `http://127.0.0.1:8042/dicom-web`.
    authorization: the header that proves who asks, such as `Bearer ...`; '': none.
  """

  url: str
  authorization: str = ""


def read_archive(url: str | None, authorization: str = "") -> Archive | None:
  """Returns the archive at an address; None without one.

  Raises:
    UserError: it is no address of the web, or it has a password in it, which lists of processes
      show.
  """
  if not url:
    return None
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
    raise UserError(f"--dicomweb={url}: write http://HOST:PORT/PATH, the root of its DICOMweb")
  if "@" in parts.netloc:
    raise UserError(
      "--dicomweb: has a name or a password in it, which others see; write the header into a file "
      "(--dicomweb_auth_file)"
    )
  return Archive(url.rstrip("/"), authorization)


def is_uid(text: str) -> bool:
  """Returns whether a text has the form of a DICOM UID."""
  return len(text) <= _MAX_UID and _UID.fullmatch(text) is not None


def fetch_series(archive: Archive, series_uid: str, folder: Path, max_bytes: int) -> None:
  """Writes the instances of a series into a new folder, a file each.

  Raises:
    RequestError: the archive does not answer, has no such series, or one that is too large.
  """
  study_uid = _find_study(archive, series_uid)
  # Any transfer syntax, as stored: otherwise the archive has to decompress, which not all can.
  media = 'multipart/related; type="application/dicom"; transfer-syntax=*'
  path = f"studies/{study_uid}/series/{series_uid}"
  headers, body = _ask(archive, path, max_bytes, {"Accept": media})
  boundary = headers.get_boundary() or ""
  # A connection that ends early is no error to `read1`; only the last boundary proves the end.
  if boundary and f"\r\n--{boundary}--".encode() not in body:
    raise RequestError(502, f"{archive.url}: broke off within series {series_uid}")
  parts = _split_parts(boundary, body)
  if not parts:
    raise RequestError(502, f"{archive.url}: sent no instances of series {series_uid}")
  folder.mkdir()
  for number, part in enumerate(parts):
    # Numbered here: an archive chooses no name on this disk.
    (folder / f"{number}.dcm").write_bytes(part)


def store_instance(archive: Archive, content: bytes) -> None:
  """Stores a DICOM file in the archive.

  Raises:
    RequestError: the archive does not answer, or does not take it.
  """
  boundary = uuid.uuid4().hex
  head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
  body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
  kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
  headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
  _, said = _ask(archive, "studies", _MAX_JSON_BYTES, headers, body)
  # A status of success may still come with instances that were not stored (202).
  if said and (reason := _read_failure(_parse_json(archive, said))):
    raise RequestError(502, f"{archive.url}: did not store the mask (reason {reason})")


def _read_failure(answer: Any) -> str:
  """Returns the code of the reason why an instance was not stored; '' if it was."""
  answers = answer if isinstance(answer, list) else [answer]
  for one in answers:
    # An empty sequence, as some send it, has no Value.
    failed = one.get(_FAILED, {}).get("Value") if isinstance(one, dict) else None
    if failed:
      return str(failed[0].get(_REASON, {}).get("Value", ["unknown"])[0])
  return ""


def _find_study(archive: Archive, series_uid: str) -> str:
  query = urllib.parse.urlencode({"SeriesInstanceUID": series_uid, "includefield": _STUDY_UID})
  _, body = _ask(archive, f"series?{query}", _MAX_JSON_BYTES, {"Accept": "application/dicom+json"})
  found = _parse_json(archive, body) if body else []  # no content: no series
  if not found:
    raise RequestError(404, f"{archive.url}: has no series {series_uid}")
  try:
    study_uid = str(found[0][_STUDY_UID]["Value"][0])
  except (LookupError, TypeError):
    study_uid = ""
  # It becomes part of the next request's path.
  if not is_uid(study_uid):
    raise RequestError(502, f"{archive.url}: names no study of series {series_uid}")
  return study_uid


def _ask(
  archive: Archive,
  path: str,
  max_bytes: int,
  headers: Mapping[str, str],
  body: bytes | None = None,
) -> tuple[email.message.Message, bytes]:
  """Sends a request (POST with a body, else GET); returns the headers and body of the response."""
  known = {"Authorization": archive.authorization} if archive.authorization else {}
  request = urllib.request.Request(f"{archive.url}/{path}", body, {**headers, **known})
  try:
    with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
      content = _read_body(response, max_bytes)
      answered: email.message.Message = response.headers
  except urllib.error.HTTPError as error:
    # The error is the response too, and holds its connection.
    error.close()
    raise RequestError(502, f"{archive.url}: answered {error.code} {error.reason}") from None
  except (OSError, HTTPException) as error:
    raise RequestError(502, f"{archive.url}: does not answer ({error})") from None
  if len(content) > max_bytes:
    raise RequestError(413, f"{archive.url}: sends more than the {max_bytes} bytes that are taken")
  return answered, content


def _read_body(response: HTTPResponse, max_bytes: int) -> bytes:
  """Reads a response, or one piece more of it than may be; breaks off when the time is over."""
  content = bytearray()
  # `read` would wait for a whole piece, and a slow archive would outlast the deadline meanwhile.
  while len(content) <= max_bytes and (piece := response.read1(_PIECE_BYTES)):
    check_deadline()
    content += piece
  return bytes(content)


def _parse_json(archive: Archive, content: bytes) -> Any:
  try:
    return json.loads(content)
  except ValueError:
    raise RequestError(502, f"{archive.url}: did not answer in JSON") from None


def _split_parts(boundary: str, body: bytes) -> list[bytes]:
  """Returns the contents of the parts of a multipart body; none without a boundary."""
  if not boundary:
    return []
  # Before the first boundary there may be a line break or none; after the last one stands `--`.
  _, *parts = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
  contents = [part.partition(b"\r\n\r\n")[2] for part in parts if not part.startswith(b"--")]
  return [content for content in contents if content]
