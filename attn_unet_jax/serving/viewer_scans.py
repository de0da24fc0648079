"""Answers the calls by which viewers send a scan before they ask for its mask.

The paths, fields and answers are those of MONAI Label's REST interface, version 0.8.
"""

import time
import uuid
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.requests import MAX_FIELDS, list_files, read_params
from attn_unet_jax.serving.scan_files import SentScan
from attn_unet_jax.serving.state import ServiceState, read_state

ImageKey = tuple[str, str, str]


def name_image(request: Request, params: dict[str, Any], image: str) -> ImageKey:
  """Returns the key of a scan that a viewer has named.

  Viewers name scans as they like, and two may both send a `CT`: each gets its own.
  """
  client = request.client.host if request.client else ""
  return client, str(params.get("client_id", "")), image


async def add_session(request: Request) -> Response:
  """Takes a scan, or the slices of one, under an id that the service chooses."""
  state, session_id = read_state(request), uuid.uuid4().hex
  async with request.form(max_fields=MAX_FIELDS) as form:
    files = list_files(form, "files", "file")
    scan = await run_in_threadpool(state.scans.add, session_id, files)
  info = _describe_session(state, session_id, scan)
  return JSONResponse({"session_id": session_id, "session_info": info})


async def describe_session(request: Request) -> Response:
  """Says whether a session still has its scan."""
  state, session_id = read_state(request), request.path_params["session"]
  scan = state.scans.find(session_id)
  return JSONResponse(_describe_session(state, session_id, _require(scan, session_id)))


async def remove_session(request: Request) -> Response:
  """Removes a session with its scan."""
  state, session_id = read_state(request), request.path_params["session"]
  scan = await run_in_threadpool(state.scans.remove, session_id)
  return JSONResponse(_describe_session(state, session_id, _require(scan, session_id)))


async def add_image(request: Request) -> Response:
  """Takes a scan under the name that the viewer gives it."""
  state = read_state(request)
  async with request.form(max_fields=MAX_FIELDS) as form:
    files = list_files(form, "file")
    # Without a file `add` refuses the request and says what to send.
    image = request.query_params.get("image") or (files[0].name if files else "")
    key = name_image(request, read_params(form), image)
    await run_in_threadpool(state.scans.add, key, files)
  return JSONResponse({"image": image})


def describe_scans(state: ServiceState) -> dict[str, Any]:
  """Returns how many scans are kept; none of them has a label that stays."""
  return {"total": len(state.scans), "completed": 0, "label_tags": {}}


def _describe_session(state: ServiceState, session_id: str, scan: SentScan) -> dict[str, Any]:
  expiry = int(state.options.expiry_seconds)
  return {
    "name": session_id,
    "image": scan.name,
    "meta": {},
    "last_access_ts": int(time.time()),
    "expiry": expiry,
  }


def _require(scan: SentScan | None, session_id: str) -> SentScan:
  if scan is None:
    raise RequestError(404, f"no session {session_id!r}; scans are kept for a while only")
  return scan


ROUTES = [
  Route("/session/", add_session, methods=["PUT"]),
  Route("/session/{session}", describe_session, methods=["GET"]),
  Route("/session/{session}", remove_session, methods=["DELETE"]),
  # The interface has both paths.
  Route("/datastore/", add_image, methods=["PUT"]),
  Route("/datastore/image", add_image, methods=["PUT"]),
]
