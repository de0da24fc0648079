"""Builds a data set: finds its builder, checks what it is given, writes its records."""

import importlib
import io
import logging
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.record_builder import RecordBuilder
from tfds_pancreas.records import VolumeConfig
from tfds_pancreas.workers import parse_beam_options

# A fixed list, since a name becomes the module to import: no other module can be named.
DATASETS = (
  "phantom_ct",
  "pancreas_ct",
  "decathlon_pancreas",
  "btcv",
  "gibson_ct",
  "folder_ct",
  "painted_ct",
)


def build_dataset(
  dataset: str,
  data_dir: str | Path,
  *,
  manual_dir: str | Path | None = None,
  skip_bad_cases: bool = False,
  accept: Acceptance = NOTHING,
  workers: int | None = None,
  beam_runner: str | None = None,
  beam: Sequence[str] = (),
) -> Path:
  """Builds a data set unless it is there already.

  Args:
    dataset: 'NAME/CONFIG', as in 'phantom_ct/demo'.
    data_dir: where data sets go; made when missing.
    manual_dir: where the files lie that a data set of real scans is made from.
    skip_bad_cases: leave out cases that fail their checks, instead of stopping.
    accept: doubts about the scans that the user accepts.
    workers: processes that read scans; None decides by cores and memory.
    beam_runner: the name of an Apache Beam runner, which then does the work.
    beam: options of Beam, 'NAME=VALUE'.

  Returns:
    the directory of its files.

  Raises:
    UserError: unknown data set or config, a directory that cannot be written or that another
      process is building, files that are missing or fail their checks, or no Apache Beam.
  """
  builder_class, config = _find_builder(dataset)
  options = _make_builder_options(builder_class, manual_dir, skip_bad_cases, accept)
  options |= {"workers": workers}
  if workers and (beam_runner or beam):
    raise UserError(
      "--workers is for this machine alone; with Beam, set the number by --beam_options"
    )
  settings = _make_download_config(manual_dir, beam_runner, beam)
  logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of every iso<k>mm that is not listed
  try:
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    builder = builder_class(config=config, data_dir=data_dir, **options)
    # TFDS renames the folder at the end: where it is, it is complete.
    if not builder.data_path.exists():
      _require_files(builder.MANUAL_DOWNLOAD_INSTRUCTIONS, manual_dir)
      print_line(f"{dataset}: building")
      _write_records(builder, settings)
      for line in builder.doubts:
        print(line, flush=True)
  except OSError as error:
    # A file elsewhere, such as a scan that may not be read, is told by its own name.
    if error.filename and not Path(error.filename).is_relative_to(data_dir):
      raise
    raise UserError(
      f"{data_dir}: cannot be written ({error}); choose another --data_dir"
    ) from error
  return Path(builder.data_dir)


def _make_builder_options(
  builder_class: type[RecordBuilder],
  manual_dir: str | Path | None,
  skip_bad_cases: bool,
  accept: Acceptance,
) -> dict[str, Any]:
  """Returns the arguments of a builder, except for its config and place."""
  if builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS:
    return {"skip_bad_cases": skip_bad_cases, "accept": accept}
  if manual_dir or skip_bad_cases or accept:
    raise UserError(
      "this data set is not made from files: leave out --manual_dir, --skip_bad_cases, --accept"
    )
  return {}


def _require_files(instructions: str | None, manual_dir: str | Path | None) -> None:
  """Refuses a folder that is missing or empty before TFDS does, in one line."""
  if not instructions:
    return
  if not manual_dir:
    raise UserError(f"--manual_dir is missing. {instructions}")
  if not Path(manual_dir).is_dir() or not any(Path(manual_dir).iterdir()):
    raise UserError(f"--manual_dir={manual_dir}: no such folder, or it is empty. {instructions}")


def _make_download_config(
  manual_dir: str | Path | None, beam_runner: str | None, beam: Sequence[str]
) -> tfds.download.DownloadConfig:
  options = parse_beam_options(beam) if beam_runner or beam else None
  return tfds.download.DownloadConfig(
    manual_dir=manual_dir, beam_runner=beam_runner, beam_options=options
  )


def _write_records(builder: RecordBuilder, settings: tfds.download.DownloadConfig) -> None:
  """Writes the records into a folder that TFDS renames at the end."""
  tfds.disable_progress_bar()
  # TFDS announces a download, and makes a folder for it; these data sets have none.
  with tempfile.TemporaryDirectory() as no_downloads, redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_dir=no_downloads, download_config=settings)


def _find_builder(dataset: str) -> tuple[type[RecordBuilder], VolumeConfig]:
  """Finds the builder's class and the config of a data set."""
  name, _, config = dataset.partition("/")
  if name not in DATASETS:
    raise UserError(
      f"--dataset={dataset}: no data set is called {name!r}; there are {_list_datasets()}"
    )
  builder_class = _load_builder_class(name)
  listed = builder_class.builder_configs
  # Phantoms have the listed configs alone. Data sets of scans make one for any spacing.
  make = getattr(builder_class, "make_config", listed.__getitem__)
  try:
    return builder_class, listed[config] if config in listed else make(config)
  except (KeyError, ValueError) as error:
    why = f" ({error})" if isinstance(error, ValueError) else ""
    raise UserError(
      f"--dataset={dataset}: {name} has no config {config!r}{why}; there are {_list_datasets()}"
    ) from None


def _load_builder_class(name: str) -> type[RecordBuilder]:
  # By the name that TFDS gives such modules; only the one that is built is imported.
  module = importlib.import_module(f"tfds_pancreas.{name}.{name}_dataset_builder")
  builder_class: type[RecordBuilder] = module.Builder
  return builder_class


def _list_datasets() -> str:
  return ", ".join(
    f"{name}/{config}"
    for name, kind in ((name, _load_builder_class(name)) for name in DATASETS)
    for config in (*kind.builder_configs, *(["iso<k>mm"] if hasattr(kind, "make_config") else []))
  )
