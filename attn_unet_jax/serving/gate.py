"""Lets through the requests that the service answers: by host, origin, token, size and pace."""

import asyncio
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attn_unet_jax.runtime.console import escape_controls
from attn_unet_jax.runtime.errors import format_error
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.options import ServiceOptions, is_loopback

# A client asks these before it has a token.
_OPEN_PATHS = ("/auth/", "/auth/token", "/health")
_OPEN_BYTES = 1 << 16  # far more than a name and a password
_STALL_S = 60.0  # without a byte of a body that is not complete
_LONGEST_LENGTH = 20  # in digits, of which int() refuses thousands


class Gate:
  """A layer around an application that refuses requests before anything of them is read.

  Without a token the name that a request asks for must be one of this machine's own, and a page in
  a browser must be one of `origins`: any page could otherwise send scans, or read answers under a
  name of its own that leads here. Bodies are counted as they come, and no more come at once than
  scans may wait.

  Args:
    app: the application.
    options: whom it answers, and how large a request may be.
  """

  def __init__(self, app: ASGIApp, options: ServiceOptions):
    self._app, self._options = app, options
    self._arriving: set[_Body] = set()

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers or refuses a request."""
    # The start and the end of the server are announced to an application as well.
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    body = _Body(self, receive, self._find_limit(scope["path"]))
    try:
      self._check_headers(Headers(scope=scope), scope["path"], body.limit)
      if scope["method"] in ("POST", "PUT") and scope["path"] not in _OPEN_PATHS:
        self._take_place(body)
    except RequestError as error:
      await respond_error(error)(scope, receive, send)
      return
    try:
      # What `receive` raises here becomes a response by the application's own handlers.
      await self._app(scope, body.receive, send)
    finally:
      # A client that goes away never completes its body.
      self.free_place(body)

  def too_large(self, limit: int) -> RequestError:
    """Returns the refusal of a body with more than so many bytes."""
    if limit < self._options.max_bytes:
      return RequestError(413, f"larger than the {limit} bytes that are taken here")
    return RequestError(
      413, f"larger than the {self._options.max_upload_mib} MiB that --max_upload_mib allows"
    )

  def free_place(self, body: "_Body") -> None:
    """Lets the next one come, once a body has come or nobody reads it any more."""
    self._arriving.discard(body)

  def _take_place(self, body: "_Body") -> None:
    # All requests run in one event loop, so no lock is needed.
    if len(self._arriving) >= self._options.max_waiting:
      raise RequestError(
        503, f"{len(self._arriving)} scans are being sent already; send this one again later"
      )
    self._arriving.add(body)

  def _find_limit(self, path: str) -> int:
    """Returns how many bytes a request to a path may have."""
    limit = self._options.max_bytes
    return min(limit, _OPEN_BYTES) if path in _OPEN_PATHS else limit

  def _check_headers(self, headers: Headers, path: str, limit: int) -> None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not self._options.token and not is_loopback(_read_name(host)):
      raise RequestError(421, f"asked for as {host!r}, and answers as 127.0.0.1 or localhost alone")
    # A page from the address of the service itself may ask.
    if origin and origin not in self._options.origins and _read_place(origin) != host:
      raise RequestError(
        403, f"pages of {origin} may not ask; --allow_origins names those that may"
      )
    if self._options.token and path not in _OPEN_PATHS:
      _check_token(headers.get("authorization", ""), self._options.token)
    # What is announced is refused before it comes. A body without a length, or with a wrong one, is
    # counted by `_Body`.
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:_LONGEST_LENGTH]) > limit:
      raise self.too_large(limit)


class _Body:
  """Reads the body of a request, which stops if it is too large or stalls, whatever it promises."""

  def __init__(self, gate: Gate, receive: Receive, limit: int):
    self._gate, self._receive, self.limit = gate, receive, limit
    self._received, self._complete = 0, False

  async def receive(self) -> Message:
    """Returns the next message of the request.

    Raises:
      RequestError: the body is too large, or nothing more of it comes.
    """
    try:
      # After the body comes only the news that the client has left, and no limit is on that.
      async with asyncio.timeout(None if self._complete else _STALL_S):
        message = await self._receive()
    except TimeoutError:
      raise RequestError(408, f"nothing has come for {_STALL_S:g} s; send it again") from None
    self._received += len(message.get("body", b""))
    if self._received > self.limit:
      raise self._gate.too_large(self.limit)
    if message["type"] != "http.request" or not message.get("more_body", False):
      self._complete = True
      self._gate.free_place(self)
    return message


def respond_error(error: Exception) -> JSONResponse:
  """Returns the response to a request that is refused: its line, as JSON."""
  status = error.status if isinstance(error, RequestError) else 422
  # RFC 9110 requires it with 401.
  headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
  # What a client has sent may stand in the line, and may be no text.
  return JSONResponse({"error": escape_controls(format_error(error))}, status, headers)


def is_token(text: str, token: str) -> bool:
  """Returns whether a text is the token, in a time that does not tell how much of it is."""
  # As bytes: of texts it takes ASCII alone, and a client may send anything.
  return hmac.compare_digest(text.encode(errors="replace"), token.encode())


def _check_token(authorization: str, token: str) -> None:
  kind, _, given = authorization.partition(" ")
  if kind.lower() != "bearer" or not is_token(given.strip(), token):
    raise RequestError(
      401, "needs the header `Authorization: Bearer TOKEN` with the service's token"
    )


def _read_name(host: str) -> str:
  """Returns the name in a Host header, without its port."""
  try:
    return urlsplit(f"//{host}").hostname or ""
  except ValueError:
    return ""


def _read_place(origin: str) -> str:
  """Returns the host and port in an Origin header; '' if there are none."""
  try:
    return urlsplit(origin).netloc
  except ValueError:
    return ""
