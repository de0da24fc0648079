"""Builds a data set of labelled scans as sharded records (ArrayRecord, no TensorFlow).

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data

Data sets: phantom_ct/tiny (8 coarse phantoms, for tests), phantom_ct/demo (66 phantoms).
A data set that is there already is left alone. One that was interrupted leaves no data set behind;
run the command again.
"""

import importlib
import io
import logging
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import tensorflow_datasets as tfds
from absl import flags

from attn_unet_jax.command import run
from attn_unet_jax.errors import UserError
from tfds_pancreas.records import FILE_FORMAT, built_directory

DATASETS = ("phantom_ct",)

_DATASET = flags.DEFINE_string("dataset", None, "What to build, NAME/CONFIG.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the records go.", required=True)


def main() -> None:
  """Builds what the flags say, and says where it is."""
  start = time.perf_counter()
  there = built_directory(_DATASET.value, _DATA_DIR.value)
  if not there:
    print(f"{_DATASET.value}: building", flush=True)
  directory = build(_DATASET.value, _DATA_DIR.value)
  took = "already there" if there else f"built in {time.perf_counter() - start:.0f} s"
  print(f"{_DATASET.value}: {took}: {directory}")


def build(dataset: str, data_dir: str | Path) -> Path:
  """Builds a data set unless it is there already.

  Args:
    dataset: 'NAME/CONFIG', as in 'phantom_ct/demo'.
    data_dir: where data sets go; made when missing.

  Returns:
    the directory of its files.

  Raises:
    UserError: unknown data set or config, or a directory that cannot be written.
  """
  builder_class, config = _find(dataset)
  logging.getLogger("absl").setLevel(logging.WARNING)
  try:
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    builder = builder_class(config=config, data_dir=data_dir, file_format=FILE_FORMAT)
    _write(builder)
  except OSError as error:
    raise UserError(
      f"{data_dir}: cannot be written ({error}); choose another --data_dir"
    ) from error
  return Path(builder.data_dir)


def _write(builder: tfds.core.GeneratorBasedBuilder) -> None:
  """Writes the records beside their place and renames them at the end, as TFDS does."""
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  # TFDS announces a download, and makes a folder for it; these data sets have none.
  with tempfile.TemporaryDirectory() as no_downloads, redirect_stdout(io.StringIO()):
    settings = tfds.download.DownloadConfig(num_shards=builder.builder_config.shards)
    builder.download_and_prepare(download_dir=no_downloads, download_config=settings)


def _find(dataset: str) -> tuple[type[tfds.core.GeneratorBasedBuilder], str]:
  """The builder's class and the config's name."""
  name, _, config = dataset.partition("/")
  if name not in DATASETS:
    raise UserError(f"--dataset={dataset}: no data set is called {name!r}; there are {_all()}")
  builder_class = _builder_class(name)
  if config not in builder_class.builder_configs:
    raise UserError(f"--dataset={dataset}: {name} has no config {config!r}; there are {_all()}")
  return builder_class, config


def _builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
  return importlib.import_module(f"tfds_pancreas.{name}.{name}_dataset_builder").Builder


def _all() -> str:
  return ", ".join(
    f"{name}/{config}" for name in DATASETS for config in _builder_class(name).builder_configs
  )


if __name__ == "__main__":
  run(main)
