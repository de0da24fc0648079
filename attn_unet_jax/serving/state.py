"""What the calls of the service share."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from starlette.requests import Request

from attn_unet_jax.serving.job_queue import JobQueue
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.serving.scan_files import ScanFiles
from attn_unet_jax.serving.segmenter import Segmenter


@dataclass(frozen=True)
class ServiceState:
  """The parts of a service that runs.

  Attributes:
    options: the limits.
    segmenter: answers a request.
    queue: what waits for it.
    scans: those that viewers have sent, until they ask for a mask.
  """

  options: ServiceOptions
  segmenter: Segmenter
  queue: JobQueue
  scans: ScanFiles


def read_state(request: Request) -> ServiceState:
  """Returns the state of the service that a request reached."""
  return cast(ServiceState, request.app.state.service)


def remove_folder(folder: Path) -> None:
  """Removes the folder of a job that does not come to be."""
  shutil.rmtree(folder, ignore_errors=True)
