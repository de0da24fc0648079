"""Answers the calls of viewers that speak to a MONAI Label server: `info`, `infer` and `auth`.

The paths, fields and answers are those of MONAI Label's REST interface, version 0.8, as the modules
of 3D Slicer and OHIF use it.
"""

import json
import uuid
from pathlib import Path
from typing import Any, Literal, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attn_unet_jax import __version__
from attn_unet_jax.serving.archive import is_uid
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.gate import is_token
from attn_unet_jax.serving.requests import (
  MAX_FIELDS,
  is_set,
  list_files,
  read_acceptance,
  read_params,
  wait_for_answer,
)
from attn_unet_jax.serving.scan_files import SENT, SentFile, SentScan, save_scan
from attn_unet_jax.serving.segmenter import ScanRequest, ServedAnswer
from attn_unet_jax.serving.state import ServiceState, read_state, remove_folder
from attn_unet_jax.serving.viewer_scans import describe_scans, name_image
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.nrrd import VOXEL_TYPES, format_nrrd

_OUTPUTS = ("image", "json", "all", "dicom_seg")
# 3D Slicer asks for NRRD, in which segments have names.
_NIFTI, _NRRD = ".nii.gz", (".nrrd", ".seg.nrrd")


async def describe_service(request: Request) -> Response:
  """Returns what the service segments: `GET /info/`."""
  state = read_state(request)
  run = state.segmenter.work.run
  model = {
    "type": "segmentation",
    # The background, 0, is no segment.
    "labels": {name: value for name, value in run.label_names.items() if value},
    "dimension": 3,
    "description": f"{', '.join(run.classes)} on CT; not a medical device",
    "config": {},
  }
  return JSONResponse(
    {
      "name": "attn_unet_jax",
      "description": "Segmentation of CT",
      "version": __version__,
      "labels": list(run.classes),
      "models": {state.segmenter.model_name: model},
      # Clients expect these parts of the interface; nothing here learns from what is corrected.
      "trainers": {},
      "strategies": {},
      "scoring": {},
      "train_stats": {},
      "datastore": describe_scans(state),
    }
  )


class _Wanted(NamedTuple):
  """What is asked for, and how it is to be sent."""

  request: ScanRequest
  output: str
  extension: str
  voxel_type: str
  compressed: bool


async def infer(request: Request) -> Response:
  """Segments a scan while the client waits: `POST /infer/{model}`."""
  state, model = read_state(request), request.path_params["model"]
  if model != state.segmenter.model_name:
    raise RequestError(404, f"no model {model!r}; this service has {state.segmenter.model_name!r}")
  state.queue.check_room()
  folder = state.queue.make_folder()
  try:
    async with request.form(max_fields=MAX_FIELDS) as form:
      params, files = read_params(form), list_files(form, "file")
      wanted = await run_in_threadpool(_read_wanted, state, request, params, files, folder)
    state.segmenter.check_request(wanted.request)
    job = state.queue.add(wanted.request, folder)
  except BaseException:
    remove_folder(folder)
    raise
  try:
    answer = await wait_for_answer(request, state.queue, job)
    return await run_in_threadpool(_respond, state, answer, wanted)
  finally:
    # Its client has the mask by now, or has gone: nobody will ask for this job.
    await run_in_threadpool(state.queue.remove, job)


def _read_wanted(
  state: ServiceState,
  request: Request,
  params: dict[str, Any],
  files: list[SentFile],
  folder: Path,
) -> _Wanted:
  query = request.query_params
  # MONAI Label's own default.
  output = query.get("output") or "all"
  if output not in _OUTPUTS:
    raise RequestError(422, f"output={output}: none of {', '.join(_OUTPUTS)}")
  extension = str(params.get("result_extension") or _NIFTI)
  if extension not in (_NIFTI, *_NRRD):
    raise RequestError(422, f"result_extension={extension}: none of {', '.join((_NIFTI, *_NRRD))}")
  # Some viewers take the voxels for what they asked for, whatever the header says.
  voxel_type = str(params.get("result_dtype") or "uint8")
  if extension in _NRRD and voxel_type not in VOXEL_TYPES:
    raise RequestError(422, f"result_dtype={voxel_type}: none of {', '.join(VOXEL_TYPES)}")
  scan, series = _find_scan(state, request, params, files, folder)
  output_format: Literal["dicom-seg", "nifti"] = "dicom-seg" if output == "dicom_seg" else "nifti"
  wanted = ScanRequest(
    scan, series, output_format, read_acceptance(params), is_set(params, "save_label")
  )
  return _Wanted(wanted, output, extension, voxel_type, is_set(params, "result_compress"))


def _find_scan(
  state: ServiceState,
  request: Request,
  params: dict[str, Any],
  files: list[SentFile],
  folder: Path,
) -> tuple[SentScan | None, str | None]:
  """Finds the scan that is meant: one in the request, one sent before, or a series' UID."""
  image, session = (request.query_params.get(name, "") for name in ("image", "session_id"))
  series = params.get("series")
  if series is not None and not (isinstance(series, str) and is_uid(series)):
    raise RequestError(422, f"series={series}: no DICOM UID")
  if files:
    return save_scan(files, folder / SENT), series
  # The job waits in a queue, and the viewer may send another scan by that name meanwhile.
  own = folder / SENT
  held = state.scans.lend(session, own) if session else None
  held = held or state.scans.lend(name_image(request, params, image), own)
  if held:
    return held, series
  if is_uid(image) and state.options.archive:
    return None, image
  raise RequestError(
    404, f"no scan: neither a file, nor session {session!r}, nor image {image!r} is there"
  )


def _respond(state: ServiceState, answer: ServedAnswer, wanted: _Wanted) -> Response:
  names = state.segmenter.work.run.label_names
  params = {
    **answer.facts,
    "label_names": {name: value for name, value in names.items() if value},
    # OHIF's extension before 0.8.5 fails without it. MONAI Label leaves it empty too.
    "centroids": {},
  }
  if wanted.output == "json":
    return JSONResponse(params)
  if wanted.output == "dicom_seg":
    return Response(answer.mask.read_bytes(), media_type="application/dicom")
  if wanted.extension in _NRRD:
    # The mask on disk, and so with the geometry that everybody else reads.
    mask = read_label(answer.mask)
    content = format_nrrd(mask, names, compressed=wanted.compressed, voxel_type=wanted.voxel_type)
  else:
    content = answer.mask.read_bytes()
  if wanted.output == "image":
    return Response(content, media_type="application/octet-stream")
  return _respond_parts(json.dumps(params).encode(), f"mask{wanted.extension}", content)


def _respond_parts(params: bytes, name: str, content: bytes) -> Response:
  """Returns a response of two parts: the JSON called params, and the mask called image."""
  # Starlette reads forms, but writes none.
  boundary = uuid.uuid4().hex
  line = f"--{boundary}\r\nContent-Disposition: form-data; name="
  body = b"".join(
    (
      f'{line}"params"\r\nContent-Type: application/json\r\n\r\n'.encode(),
      params,
      f'\r\n{line}"image"; filename="{name}"\r\n'.encode(),
      b"Content-Type: application/octet-stream\r\n\r\n",
      content,
      f"\r\n--{boundary}--\r\n".encode(),
    )
  )
  return Response(body, media_type=f"multipart/form-data; boundary={boundary}")


async def describe_auth(request: Request) -> Response:
  """Says whether a token is needed: `GET /auth/`."""
  return JSONResponse({"enabled": bool(read_state(request).options.token)})


async def give_token(request: Request) -> Response:
  """Takes the token as a password, and returns it as the client will send it."""
  token = read_state(request).options.token
  async with request.form(max_files=0, max_fields=MAX_FIELDS) as form:
    given = form.get("password")
  if not token:
    return JSONResponse({"access_token": None, "token_type": None})
  if not isinstance(given, str) or not is_token(given, token):
    raise RequestError(401, "the password is not the service's token")
  return JSONResponse({"access_token": token, "token_type": "Bearer"})


async def confirm_token(_: Request) -> Response:
  """Answers who has come through the gate."""
  return JSONResponse({"valid": True})


ROUTES = [
  Route("/info/", describe_service, methods=["GET"]),
  Route("/infer/{model}", infer, methods=["POST"]),
  Route("/auth/", describe_auth, methods=["GET"]),
  Route("/auth/token", give_token, methods=["POST"]),
  Route("/auth/token/valid", confirm_token, methods=["GET"]),
]
