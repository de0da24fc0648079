"""Puts the calls of the service together as one application."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.serving import job_routes, viewer_calls, viewer_scans
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.gate import Gate, respond_error
from attn_unet_jax.serving.job_queue import JobQueue
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.serving.scan_files import ScanFiles
from attn_unet_jax.serving.segmenter import Segmenter
from attn_unet_jax.serving.state import ServiceState, read_state
from attn_unet_jax.workflows.answer_scan import ScanWork


def build_application(work: ScanWork, options: ServiceOptions) -> Starlette:
  """Returns the application; while it runs it has a queue and a folder, which vanish with it.

  Args:
    work: the opened run.
    options: whom it answers, and how.
  """

  @contextlib.asynccontextmanager
  async def keep_state(app: Starlette) -> AsyncIterator[None]:
    """Keeps the queue and the folder of the service while it runs."""
    segmenter = Segmenter(work, options)
    # Of this user alone, as Python makes it.
    with tempfile.TemporaryDirectory(prefix="attn_unet_jax_") as folder:
      scans, jobs = Path(folder) / "scans", Path(folder) / "jobs"
      scans.mkdir()
      jobs.mkdir()
      # As long as a job may wait for it, at least.
      held = ScanFiles(scans, max(options.expiry_seconds, options.max_seconds))
      queue = JobQueue(segmenter.segment, options, jobs, held.remove_expired)
      app.state.service = ServiceState(options, segmenter, queue, held)
      try:
        yield
      finally:
        # It waits for the thread that segments, and requests in progress still need the event loop.
        await run_in_threadpool(queue.close)

  layers = [Middleware(Gate, options=options)]
  if options.origins:
    # Before the gate: a browser first asks whether it may ask, and has no token then.
    pages = Middleware(
      CORSMiddleware, allow_origins=options.origins, allow_methods=["*"], allow_headers=["*"]
    )
    layers.insert(0, pages)
  return Starlette(
    routes=[
      Route("/health", describe_health, methods=["GET"]),
      *job_routes.ROUTES,
      *viewer_calls.ROUTES,
      *viewer_scans.ROUTES,
    ],
    middleware=layers,
    exception_handlers={
      UserError: _respond_user_error,
      HTTPException: _respond_http_error,
      OSError: _respond_system_error,
      Exception: _respond_fault,
    },
    lifespan=keep_state,
  )


async def describe_health(request: Request) -> Response:
  """Says that the service runs, and how many scans wait."""
  return JSONResponse({"status": "ok", "waiting": read_state(request).queue.count_waiting()})


async def _respond_user_error(_: Request, error: Exception) -> Response:
  return respond_error(error)


async def _respond_http_error(_: Request, error: Exception) -> Response:
  """Responds to what is no call of this service, or no form."""
  assert isinstance(error, HTTPException)
  return respond_error(RequestError(error.status_code, error.detail))


async def _respond_system_error(_: Request, error: Exception) -> Response:
  """Responds where the disk is full, or the system refuses something else."""
  print_line(f"507 {format_error(error)}")  # which may name folders that no client knows
  reason = error.strerror if isinstance(error, OSError) else None
  return respond_error(RequestError(507, f"the scan cannot be taken: {reason or 'a system error'}"))


async def _respond_fault(_: Request, __: Exception) -> Response:
  """Responds to a fault of the program, whose traceback the server prints."""
  return respond_error(RequestError(500, "a fault of the service; its log has more"))


def break_off_jobs(application: Starlette) -> None:
  """Asks the jobs of an application that runs to be broken off; also from a signal's handler."""
  service = getattr(application.state, "service", None)
  if service is not None:  # it may not have started yet
    service.queue.break_off()
