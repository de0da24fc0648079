"""A service in this process, with a network that finds its class in half of every scan."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from attn_unet_jax.serving.application import build_application
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.answer_scan import ScanWork
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_answer import AnsweringRun
from tests.configs import small_config, with_keys

SHAPE = (6, 7, 8)
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])
AFFINE[:3, 3] = 5, -6, 7


def predict_half(volume: Volume) -> np.ndarray:
  probabilities = np.zeros((*volume.shape, 2), np.float32)
  probabilities[..., 0] = 1
  probabilities[: volume.shape[0] // 2] = 0, 1
  return probabilities


@contextlib.contextmanager
def open_service(
  predict: Callable[[Volume], np.ndarray] = predict_half, **options: Any
) -> Iterator[TestClient]:
  """A client of a service with these options."""
  config = with_keys(small_config(), {"data.spacing_mm": 1.0})
  trained = LoadedRun(config, ("pancreas",), SimpleNamespace(predict=predict), 7)
  run = AnsweringRun("runs/a", 7, ("pancreas",), "a network")
  work = ScanWork(trained, run, AnswerOptions(), None, None)
  application = build_application(work, ServiceOptions(**options))
  with TestClient(application, base_url="http://127.0.0.1:8000") as client:
    yield client


def pack_scan(tmp_path: Any, *, bad: bool = False, value: int = 0) -> bytes:
  """The bytes of a NIfTI file."""
  values = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.float32)
  values[0, 0, 0] = np.nan if bad else value
  write_nifti(tmp_path / "scan.nii.gz", Volume(values, AFFINE))
  return (tmp_path / "scan.nii.gz").read_bytes()


def send(client: TestClient, content: bytes, name: str = "ct.nii.gz", **query: Any) -> str:
  """Sends a scan as a job; returns its address."""
  answer = client.post("/jobs", files={"file": (name, content)}, params=query)
  assert answer.status_code == 202, answer.text
  return str(answer.headers["Location"])


def wait(client: TestClient, job: str) -> dict[str, Any]:
  """What is said of a job once it is done or has failed."""
  end = time.monotonic() + 60
  while (said := client.get(job).json())["state"] in ("waiting", "running"):
    assert time.monotonic() < end, said
    time.sleep(0.01)
  return dict(said)
