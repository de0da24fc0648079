"""Lets through the requests that the service answers: by host, origin, token and size."""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.options import ServiceOptions, is_loopback

# A client asks these before it has a token.
_OPEN_PATHS = ("/auth/", "/auth/token", "/health")


class Gate:
  """A layer around an application that refuses requests before anything of them is read.

  Without a token the name that a request asks for must be one of this machine's own, and a page in
  a browser must be one of `origins`: any page could otherwise send scans, or read answers under a
  name of its own that leads here.

  Args:
    app: the application.
    options: whom it answers, and how large a request may be.
  """

  def __init__(self, app: ASGIApp, options: ServiceOptions):
    self._app, self._options = app, options

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers or refuses a request."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    try:
      self._check_headers(Headers(scope=scope), scope["path"])
    except RequestError as error:
      await respond_error(error)(scope, receive, send)
      return
    await self._app(scope, self._count_bytes(receive), send)

  def _check_headers(self, headers: Headers, path: str) -> None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not self._options.token and not is_loopback(_read_name(host)):
      raise RequestError(421, f"asked for as {host!r}, and answers as 127.0.0.1 or localhost alone")
    if origin and origin not in self._options.origins and urlsplit(origin).netloc != host:
      raise RequestError(
        403, f"pages of {origin} may not ask; --allow_origins names those that may"
      )
    if self._options.token and path not in _OPEN_PATHS:
      _check_token(headers.get("authorization", ""), self._options.token)
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > self._options.max_bytes:
      raise self._too_large()

  def _count_bytes(self, receive: Receive) -> Receive:
    """Stops a body that grows beyond the limit, whatever its headers say."""
    received = 0

    async def count_and_receive() -> Message:
      nonlocal received
      message = await receive()
      received += len(message.get("body", b""))
      if received > self._options.max_bytes:
        raise self._too_large()
      return message

    return count_and_receive

  def _too_large(self) -> RequestError:
    return RequestError(
      413, f"larger than the {self._options.max_upload_mib} MiB that --max_upload_mib allows"
    )


def respond_error(error: Exception) -> JSONResponse:
  """Returns the response to a request that is refused: its line, as JSON."""
  status = error.status if isinstance(error, RequestError) else 422
  headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
  return JSONResponse({"error": str(error)}, status, headers)


def is_token(text: str, token: str) -> bool:
  """Returns whether a text is the token, in a time that does not tell how much of it is."""
  return hmac.compare_digest(text.encode(), token.encode())


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
