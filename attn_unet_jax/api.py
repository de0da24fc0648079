"""The program from Python: open a run, read a scan, segment it."""

import logging
from pathlib import Path

# Called otherwise here and below, since this module offers the shorter names itself.
from attn_unet_jax.inference.segment import segment_scan as segment_volume
from attn_unet_jax.runs.builtin import find_run
from attn_unet_jax.runtime.acceptance import parse_acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.scan import is_dicom_scan
from attn_unet_jax.volumes.scan import read_scan as read_volume
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_ensemble import open_ensemble


def load_run(workdir: str | Path) -> LoadedRun:
  """Opens a run with its best checkpoint; one of all folds as the mean of its folds.

  Args:
    workdir: the folder of a run, made by `attn_unet_jax.main`, or the name of a network that comes
      with the program, such as `builtin:pancreas`.

  Raises:
    UserError: no run, or one without a checkpoint.
  """
  # For a command the shell has replaced the ~; from Python nobody has.
  return open_ensemble([find_run(str(workdir)).expanduser()])


def read_scan(path: str | Path, series: str | None = None, accept: str = "") -> Volume:
  """Reads a CT scan, in HU on its native grid: `[X, Y, Z]` with an affine to mm in RAS+.

  Args:
    path: a NIfTI file, or a folder or .zip of DICOM slices.
    series: SeriesInstanceUID, where there are several.
    accept: doubts to accept, as of `predict --accept`.

  Raises:
    UserError: it is unreadable, or cannot be trusted.
  """
  path, reasons = Path(path).expanduser(), parse_acceptance(accept, "accept")
  image = read_volume(path, series_uid=series, accept=reasons)
  # Logged, not printed: what becomes of warnings is for the calling program to say.
  for line in Judge(reasons).judge_scan(image, path, None if is_dicom_scan(path) else path):
    logging.warning(line)
  return image


def segment(scan: Volume, run: LoadedRun) -> Volume:
  """Returns class indices uint8 `[X, Y, Z]` on the scan's own grid: 0, then `run.classes` from 1.

  Args:
    scan: as `read_scan` returns it.
    run: as `load_run` returns it.

  Raises:
    UserError: memory cannot hold the scan on the working grid; or the run works inside boxes, which
      nothing here gives.
  """
  # Outside its boxes the network has learnt nothing, and would find the organ anywhere.
  if run.config.data.boxes and run.locate is None:
    raise UserError(
      "the run was trained inside boxes; segment the scan by the command predict, with --boxes=FILE"
    )
  steps = run.postprocessing
  return segment_volume(scan, run.system, run.config, run.locate, postprocessing=steps).mask
