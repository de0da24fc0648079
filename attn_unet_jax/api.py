"""The program from Python: open a run, read a scan, segment it."""

from pathlib import Path

from attn_unet_jax.inference.segment import segment_scan as segment_volume
from attn_unet_jax.volumes.checks import check_image
from attn_unet_jax.volumes.scan import read_scan as read_volume
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_run import open_run_or_stages


def load_run(workdir: str | Path) -> LoadedRun:
  """Opens a run with its best checkpoint.

  Args:
    workdir: the folder of a run, made by `attn_unet_jax.main`.

  Raises:
    UserError: no run, or one without a checkpoint.
  """
  return open_run_or_stages(Path(workdir).expanduser())


def read_scan(path: str | Path, series: str | None = None) -> Volume:
  """Reads a CT scan, in HU on its native grid: `[X, Y, Z]` with an affine to mm in RAS+.

  Args:
    path: a NIfTI file, or a folder or .zip of DICOM slices.
    series: SeriesInstanceUID, where there are several.

  Raises:
    UserError: it is unreadable, or cannot be trusted.
  """
  image = read_volume(Path(path).expanduser(), series_uid=series)
  check_image(image, path)
  return image


def segment(scan: Volume, run: LoadedRun) -> Volume:
  """Returns class indices uint8 `[X, Y, Z]` on the scan's own grid: 0, then `run.classes` from 1.

  Args:
    scan: as `read_scan` returns it.
    run: as `load_run` returns it.

  Raises:
    UserError: memory cannot hold the scan on the working grid.
  """
  return segment_volume(scan, run.system, run.config, run.locate).mask
