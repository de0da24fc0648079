"""Opens the files of a data set of records, none of which is trusted.

A folder of records may be damaged, or come from others. TFDS would import whatever module its
`features.json` names. Here the features are this program's own, and the file is only compared with
them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf import json_format
from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import read_json

FILE_FORMAT = "array_record"
INFO_FILE, FEATURES_FILE, METADATA_FILE = "dataset_info.json", "features.json", "metadata.json"

WAY_OUT = "copy the data set again, or build it again"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def make_features() -> tfds.features.FeaturesDict:
  """Makes the features of a record: id, image, label and affine."""
  volume = {"shape": (None, None, None), "encoding": "zlib"}
  return tfds.features.FeaturesDict(
    {
      "id": tfds.features.Text(),
      "image": tfds.features.Tensor(dtype=np.int16, **volume),
      "label": tfds.features.Tensor(dtype=np.uint8, **volume),
      # Without an encoding float64 would be stored as float32.
      "affine": tfds.features.Tensor(dtype=np.float64, shape=(4, 4), encoding="zlib"),
    }
  )


class RecordReader(ReadOnlyBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A reader of the records in a folder, whose features are known and not read from it."""

  def _info(self) -> tfds.core.DatasetInfo:
    # With features of its own, TFDS does not look into features.json.
    return tfds.core.DatasetInfo(builder=self, features=make_features())


def open_reader(directory: Path) -> RecordReader:
  """Opens a folder of records; none is read yet.

  Raises:
    UserError: a file of the folder is missing, damaged, or not what a build writes.
  """
  info = _read_object(directory / INFO_FILE)
  if info.get("fileFormat") != FILE_FORMAT:
    raise UserError(
      f"{directory / INFO_FILE}: its file format is {info.get('fileFormat')!r}, not {FILE_FORMAT}; "
      f"{WAY_OUT}"
    )
  _check_features(directory / FEATURES_FILE)
  try:
    reader = RecordReader(builder_dir=directory)
    splits = reader.info.splits
    if any(length < 1 for split in splits.values() for length in split.shard_lengths):
      raise ValueError("a file of less than one record")
    missing = [path for split in splits.values() for path in split.filepaths if not path.exists()]
  except Exception as error:  # TFDS and protobuf each raise their own
    raise UserError(
      f"{directory / INFO_FILE}: not what a build writes ({format_error(error)}); {WAY_OUT}"
    ) from None
  if missing:
    raise UserError(f"{missing[0]}: missing, {len(missing)} files in all; {WAY_OUT}")
  if not splits:
    raise UserError(f"{directory / INFO_FILE}: names no records; {WAY_OUT}")
  return reader


def read_labels(directory: Path) -> dict[str, int]:
  """Reads the value of each label's name.

  Raises:
    UserError: the file is missing, damaged, or not what a build writes.
  """
  path = directory / METADATA_FILE
  labels = _read_object(path).get("labels")
  # `isinstance` would take true and false for whole numbers.
  if not isinstance(labels, dict) or not all(type(value) is int for value in labels.values()):
    raise UserError(f"{path}: has no label values by name; {WAY_OUT}")
  return labels


def require_record_count(path: Path, count: int) -> None:
  """Refuses a file with more or fewer records than the data set's description says.

  Raises:
    UserError: it has another number, or it is damaged.
  """
  try:
    # Nothing is read ahead: the number of records is all that is asked for.
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    found = reader.num_records()
    reader.close()
  except (RuntimeError, ValueError) as error:
    raise UserError(f"{path}: damaged ({format_error(error)}); {WAY_OUT}") from None
  if found != count:
    raise UserError(f"{path}: {found} records, {INFO_FILE} says {count}; {WAY_OUT}")


def find_versions(folder: Path) -> Sequence[Path]:
  """Finds the folders of complete versions, the newest last."""
  # A build that is under way, or was killed, lies in a folder called incomplete.
  found = [path.parent for path in folder.glob(f"*/{INFO_FILE}")]
  return sorted(filter(lambda path: _VERSION.fullmatch(path.name), found), key=_parse_version)


def _parse_version(directory: Path) -> tuple[int, ...]:
  # As numbers: 1.10.0 is newer than 1.9.0.
  return tuple(int(part) for part in directory.name.split("."))


def _read_object(path: Path) -> dict[str, Any]:
  try:
    content = read_json(path)
  except FileNotFoundError:
    raise UserError(f"{path}: missing; {WAY_OUT}") from None
  except ValueError as error:
    raise UserError(f"{path}: not readable as JSON ({format_error(error)}); {WAY_OUT}") from None
  if not isinstance(content, dict):
    raise UserError(f"{path}: not an object in JSON; {WAY_OUT}")
  return content


def _check_features(path: Path) -> None:
  """Refuses records of other features than those that are read."""
  written, known = _read_object(path), json_format.MessageToDict(make_features().to_proto())
  found, wanted = _summarise_features(written), _summarise_features(known)
  for name in {**wanted, **found}:
    if found.get(name) != wanted.get(name):
      raise UserError(
        f"{path}: describes {name} as {found.get(name, 'missing')}, records of labelled scans have "
        f"{wanted.get(name, 'none of this name')}; {WAY_OUT}"
      )


def _summarise_features(features: Mapping[str, Any]) -> dict[str, str]:
  """Returns kind, type, encoding and shape of every feature by name, as text."""
  about = {"all features": _shorten_class(features.get("pythonClassName"))}
  try:
    for name, feature in features["featuresDict"]["features"].items():
      kind, tensor = _shorten_class(feature["pythonClassName"]), feature.get("tensor", {})
      shape = [str(n) for n in tensor.get("shape", {}).get("dimensions", ())]
      about[name] = f"{kind} {tensor.get('dtype', '')} {tensor.get('encoding', '')} {shape}"
  except (KeyError, TypeError, AttributeError):
    about["all features"] = "something else"
  return about


def _shorten_class(name: object) -> str:
  """Returns the package and the name of a class; modules between them vary by version."""
  package, _, rest = str(name).partition(".")
  return f"{package}.{rest.rpartition('.')[2]}"
