"""Answers the service's own calls: a scan is sent, its job is asked for, its mask is fetched."""

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attn_unet_jax.serving.archive import is_uid
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.job_queue import Job
from attn_unet_jax.serving.requests import MAX_FIELDS, is_set, list_files, read_acceptance
from attn_unet_jax.serving.scan_files import SENT, SentFile, save_scan
from attn_unet_jax.serving.segmenter import ScanRequest
from attn_unet_jax.serving.state import ServiceState, read_state, remove_folder
from attn_unet_jax.workflows.write_mask import OUTPUT_FORMATS, OutputFormat, is_dicom_format


async def add_job(request: Request) -> Response:
  """Takes a scan, or the UID of a series in the archive; returns its job."""
  state = read_state(request)
  # Before gigabytes are taken that nobody has room for; `add` looks again.
  state.queue.check_room()
  folder = state.queue.make_folder()
  try:
    async with request.form(max_fields=MAX_FIELDS) as form:
      files = list_files(form, "file", "files")
      # It copies the scan, and the event loop answers others meanwhile.
      wanted = await run_in_threadpool(
        _read_request, state, {**request.query_params}, files, folder
      )
    state.segmenter.check_request(wanted)
    job = state.queue.add(wanted, folder)
  # A client that breaks off, and the end of the server, leave nothing behind either.
  except BaseException:
    remove_folder(folder)
    raise
  return JSONResponse(_describe(state, job), 202, {"Location": f"/jobs/{job.id}"})


def _read_request(
  state: ServiceState, query: dict[str, str], files: list[SentFile], folder: Path
) -> ScanRequest:
  named, series = query.get("output_format", "nifti"), query.get("series")
  output_format = next((one for one in OUTPUT_FORMATS if one == named), None)
  if output_format is None:
    raise RequestError(422, f"output_format={named}: none of {', '.join(OUTPUT_FORMATS)}")
  if series is not None and not is_uid(series):
    raise RequestError(422, f"series={series}: no DICOM UID")
  scan = None if series and not files else save_scan(files, folder / SENT)
  return ScanRequest(
    scan,
    series,
    output_format,
    read_acceptance(query),
    is_set(query, "store"),
  )


async def describe_job(request: Request) -> Response:
  """Returns what became of a job."""
  state = read_state(request)
  return JSONResponse(_describe(state, state.queue.find(request.path_params["job"])))


async def send_mask(request: Request) -> Response:
  """Returns the mask of a job that is done."""
  queue = read_state(request).queue
  job = queue.find(request.path_params["job"])
  if not job.answer.done():
    raise RequestError(409, f"job {job.id} is {job.state}; ask for it until it is done")
  # Of a job that failed this raises its `RequestError`, which becomes the response.
  answer = job.answer.result()
  try:
    content = await run_in_threadpool(answer.mask.read_bytes)
  except FileNotFoundError:  # it has been removed, or has expired, since it was found
    raise queue.missing(job.id) from None
  return Response(content, media_type=read_media_type(job.request.output_format))


async def remove_job(request: Request) -> Response:
  """Removes a job and its files; one that is not done yet is broken off."""
  queue = read_state(request).queue
  job = queue.find(request.path_params["job"])
  await run_in_threadpool(queue.remove, job)
  return JSONResponse({"id": job.id, "removed": True})


def read_media_type(output_format: OutputFormat) -> str:
  """Returns the media type of a mask."""
  # NIfTI has no registered type, and these files are compressed.
  return "application/dicom" if is_dicom_format(output_format) else "application/gzip"


def _describe(state: ServiceState, job: Job) -> dict[str, Any]:
  facts: dict[str, Any] = {"id": job.id, "state": job.state}
  if job.state == "waiting":
    facts["ahead"] = state.queue.count_ahead(job)
  if job.state == "done":
    facts |= job.answer.result().facts
  if job.state == "failed" and isinstance(error := job.answer.exception(), RequestError):
    facts |= {"error": str(error), "status": error.status}
  return facts


ROUTES = [
  Route("/jobs", add_job, methods=["POST"]),
  Route("/jobs/{job}", describe_job, methods=["GET"]),
  Route("/jobs/{job}", remove_job, methods=["DELETE"]),
  Route("/jobs/{job}/mask", send_mask, methods=["GET"]),
]
