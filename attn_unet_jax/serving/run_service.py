"""Opens a run and answers requests until a signal comes."""

from collections.abc import Sequence
from pathlib import Path

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.extras import import_extra
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.segment_scans import open_work

EXTRA = "serve"


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
  from attn_unet_jax.serving.application import build_application  # imports Starlette

  if options.keep:
    check_writable(options.keep)
    options.keep.mkdir(parents=True, exist_ok=True)
  work = open_work(workdirs, answers)
  if work.trained.config.data.boxes:
    raise UserError(
      f"{workdirs[0]}: works inside boxes, and a service has none of the scans to come; serve "
      "another run"
    )
  print_line(f"listens at http://{options.host}:{options.port}, for one scan after the other")
  config = uvicorn.Config(
    build_application(work, options),
    host=options.host,
    port=options.port,
    log_level="warning",
    server_header=False,
    timeout_graceful_shutdown=5,
  )
  try:
    uvicorn.Server(config).run()
  except SystemExit:  # uvicorn has logged why it cannot listen
    raise UserError(
      f"--host={options.host} --port={options.port}: cannot listen there; choose another --port"
    ) from None
