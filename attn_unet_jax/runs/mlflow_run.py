"""Writes the scalars of a run to MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.runs.trackers import TRACKERS, keep_tracker_id, read_settings, read_tracker_id
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.extras import import_extra

_KEY = "config.train.writers=mlflow"
_EXPERIMENT = "attn-unet-jax"
_BATCH, _LONGEST = 100, 6000  # parameters in one request, and characters of one: MLflow's limits


def open_client() -> Any:
  """Opens MLflow's store: that of MLFLOW_TRACKING_URI, else MLflow's own default.

  Raises:
    UserError: MLflow is not installed, or has no such store.
  """
  # It would count how it is used.
  os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
  mlflow = import_extra("mlflow", "mlflow", _KEY)
  try:
    return mlflow.MlflowClient()
  except Exception as error:
    raise UserError(
      f"{_KEY}: no store ({format_error(error)}). MLFLOW_TRACKING_URI names one: the address of a "
      "server, or sqlite:///FILE.db, which needs the whole of it, pip install mlflow"
    ) from None


class MLflowRun:
  """A run in MLflow, to which each start of a training adds its epochs.

  Args:
    workdir: the folder of the run, which keeps the id.

  Raises:
    UserError: the store cannot be reached, or no longer has the run.
  """

  def __init__(self, workdir: Path):
    self._client = open_client()
    known = read_tracker_id(workdir, "mlflow")
    try:
      self._id = self._resume(known) if known else self._begin(workdir)
    except Exception as error:
      uri = self._client.tracking_uri
      way_out = f"remove {workdir / TRACKERS} to begin a new one" if known else "is it there?"
      raise UserError(
        f"{_KEY}: {f'run {known}' if known else 'a run'} cannot be written to {uri} "
        f"({format_error(error)}); MLFLOW_TRACKING_URI names another store, or {way_out}"
      ) from None
    if not known:
      # After the run is there: an id that leads nowhere would refuse every later start.
      keep_tracker_id(workdir, "mlflow", self._id)
    print_line(f"MLflow: run {self._id}, {self._client.tracking_uri}")

  def write_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Adds an epoch; one that is trained again is there twice, and the later line counts."""
    metric = import_extra("mlflow.entities", "mlflow", _KEY).Metric
    # MLflow counts milliseconds.
    now = int(1000 * time.time())
    metrics = [metric(name, float(value), now, epoch) for name, value in values.items()]
    self._client.log_batch(self._id, metrics=metrics)

  def close(self, *, done: bool) -> None:
    """Ends the run, as killed where the training did not come to its end."""
    self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")

  def _begin(self, workdir: Path) -> str:
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    found = self._client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else self._client.create_experiment(experiment)
    begun: str = self._client.create_run(place, run_name=str(workdir)).info.run_id
    param = import_extra("mlflow.entities", "mlflow", _KEY).Param
    settings = read_settings(workdir)
    params = [param(key, str(value)[:_LONGEST]) for key, value in settings.items()]
    for first in range(0, len(params), _BATCH):
      self._client.log_batch(begun, params=params[first : first + _BATCH])
    return begun

  def _resume(self, known: str) -> str:
    # A deleted run can still be read, and is not shown.
    if self._client.get_run(known).info.lifecycle_stage == "deleted":
      raise ValueError("it was deleted")
    self._client.update_run(known, status="RUNNING")
    return known
