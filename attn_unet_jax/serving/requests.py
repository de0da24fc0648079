"""Reads what a request says, and waits for its answer."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from attn_unet_jax.runtime.acceptance import Acceptance, parse_acceptance
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.job_queue import Job, JobQueue
from attn_unet_jax.serving.scan_files import SentFile
from attn_unet_jax.serving.segmenter import ServedAnswer

MAX_FIELDS = 64  # in a form, beside its files; clients send fewer than ten
_LOOK_EVERY_S = 1.0  # whether a client still waits


def list_files(form: FormData, *names: str) -> list[SentFile]:
  """Lists the files of a form under one of its names."""
  # Clients call it `file` or `files`.
  found = [one for name in names for one in form.getlist(name)]
  return [SentFile(one.filename or "", one.file) for one in found if isinstance(one, UploadFile)]


def read_params(form: FormData) -> dict[str, Any]:
  """Reads the field `params` of a form, an object in JSON.

  Raises:
    RequestError: it is something else.
  """
  text = form.get("params") or "{}"
  try:
    params = json.loads(text) if isinstance(text, str) else None
  # Brackets in brackets by the thousand end the parser with the latter.
  except (ValueError, RecursionError):
    params = None
  if not isinstance(params, dict):
    raise RequestError(422, "params: must be an object in JSON")
  return params


def read_acceptance(params: Mapping[str, Any]) -> Acceptance:
  """Reads the doubts that a client accepts, from its field `accept`.

  Raises:
    UserError: one is unknown.
  """
  return parse_acceptance(str(params.get("accept", "")), "accept")


def is_set(params: Mapping[str, Any], name: str) -> bool:
  """Returns whether a switch is on: a boolean in JSON, or a text as of a query."""
  return str(params.get(name, False)).lower() in ("true", "1", "yes")


async def wait_for_answer(request: Request, queue: JobQueue, job: Job) -> ServedAnswer:
  """Waits for a job; breaks it off if the client goes away.

  Raises:
    RequestError: what became of the job.
  """
  answer = asyncio.wrap_future(job.answer)
  while not answer.done():
    # Not `wait_for`, which would cancel the answer when the time is over.
    await asyncio.wait([answer], timeout=_LOOK_EVERY_S)
    if not answer.done() and await request.is_disconnected():
      answer.add_done_callback(asyncio.Future.exception)  # else asyncio prints that nobody asked
      await run_in_threadpool(queue.remove, job)
      raise RequestError(499, "the client went away")
  return answer.result()
