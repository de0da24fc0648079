"""Opens a run and answers requests until a signal comes."""

import socket
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.extras import import_extra
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.segment_scans import open_work

EXTRA = "serve"

_STOP_S = 5  # for requests that are being answered when a signal comes


def run_service(workdirs: Sequence[Path], answers: AnswerOptions, options: ServiceOptions) -> None:
  """Answers requests until a signal comes.

  Args:
    workdirs: the run, or several whose probabilities are averaged.
    answers: how scans are segmented.
    options: where the service listens, and whom it answers.

  Raises:
    UserError: the extra is not installed, the run does not fit, or the port is taken.
  """
  uvicorn = import_extra("uvicorn", EXTRA, "serve")
  for module in ("starlette", "python_multipart"):
    import_extra(module, EXTRA, "serve")
  from attn_unet_jax.serving.application import (  # imports Starlette
    break_off_jobs,
    build_application,
  )

  if options.keep:
    # Now, not after the first scan has been segmented for nothing.
    check_writable(options.keep)
    options.keep.mkdir(parents=True, exist_ok=True)
  listener = _take_address(options.host, options.port)  # before what takes long
  work = open_work(workdirs, answers)
  if work.trained.config.data.boxes:
    raise UserError(
      f"{workdirs[0]}: works inside boxes, and a service has none of the scans to come; serve "
      "another run"
    )
  application = build_application(work, options)
  config = uvicorn.Config(
    application,
    log_level="warning",
    server_header=False,
    timeout_graceful_shutdown=_STOP_S,
  )
  server = uvicorn.Server(config)
  stop = server.handle_exit

  def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Breaks off what is computed, then stops as the server does."""
    break_off_jobs(application)  # else clients that wait would delay the end
    stop(number, frame)

  server.handle_exit = stop_at_once
  with listener:
    # Only now, so that clients are refused while the run is opened, and do not wait for it.
    listener.listen()
    # With `--port=0` the system has chosen one.
    port = listener.getsockname()[1]
    # An address of IPv6 has brackets in a URL.
    host = f"[{options.host}]" if ":" in options.host else options.host
    print_line(f"listens at http://{host}:{port}, for one scan after the other")
    server.run(sockets=[listener])


def _take_address(host: str, port: int) -> socket.socket:
  """Returns a socket at an address, which refuses connections until it listens.

  Raises:
    UserError: the address is none, or it is taken.
  """
  taken = f"--host={host} --port={port}: cannot listen there"
  try:
    (family, kind, _, _, address), *_ = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
  # A name that is no host's, such as one with an empty part, is a UnicodeError.
  except (OSError, UnicodeError) as error:
    raise UserError(f"{taken} ({format_error(error)}); choose another --host") from None
  listener = socket.socket(family, kind)
  try:
    # Otherwise a service that is started again at once finds its port taken by old connections.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
  except OSError as error:
    listener.close()
    raise UserError(f"{taken} ({error.strerror}); choose another --port") from None
  return listener
