"""Records of labelled scans: how every data set writes them, and how they are read.

A record is `{'id': str, 'image': int16 HU [X, Y, Z], 'label': uint8 [X, Y, Z], 'affine': float64
[4, 4]}` on canonical (RAS+) axes. The names of the label values travel with the records.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError

Record = dict[str, Any]
FILE_FORMAT = "array_record"
REPORT_FILE = "build_report.json"  # beside the records of real scans


def make_volume_info(
  builder: tfds.core.DatasetBuilder, labels: Mapping[str, int], description: str
) -> tfds.core.DatasetInfo:
  """Makes what a builder of labelled scans returns from `_info`.

  Args:
    builder: the builder itself.
    labels: name and value of each label.
    description: one paragraph about the data set.
  """
  volume = {"shape": (None, None, None), "encoding": "zlib"}
  features = {
    "id": tfds.features.Text(),
    "image": tfds.features.Tensor(dtype=np.int16, **volume),
    "label": tfds.features.Tensor(dtype=np.uint8, **volume),
    # Without an encoding float64 would be stored as float32.
    "affine": tfds.features.Tensor(dtype=np.float64, shape=(4, 4), encoding="zlib"),
  }
  return tfds.core.DatasetInfo(
    builder=builder,
    description=description,
    features=tfds.features.FeaturesDict(features),
    metadata=tfds.core.MetadataDict(labels=dict(labels)),
  )


@dataclass(eq=False)
class VolumeConfig(tfds.core.BuilderConfig):
  """A variant of a data set of labelled scans.

  Attributes:
    shards: files per split, at most the number of its cases; None decides by their size.
  """

  shards: int | None = 4


class SplitRecords(Sequence[Record]):
  """The records of one split in the order of their ids, decoded one by one when asked for."""

  def __init__(self, builder: tfds.core.DatasetBuilder, name: str):
    self._builder, self._name = builder, name

  # One source for each purpose, so that no volume is inflated that is not asked for: the ids of
  # hundreds of scans are needed at the start of every run.

  @cached_property
  def _order(self) -> list[tuple[str, int]]:
    only_id = dict.fromkeys(("image", "label", "affine"), tfds.decode.SkipDecoding())
    found = self._builder.as_data_source(self._name, decoders=only_id)
    return sorted((_decode_text(found[index]["id"]), index) for index in range(len(found)))

  @cached_property
  def _geometry_source(self) -> Sequence[Record]:
    undecoded = dict.fromkeys(("image", "label"), tfds.decode.SkipDecoding())
    source: Sequence[Record] = self._builder.as_data_source(self._name, decoders=undecoded)
    return source

  @cached_property
  def _record_source(self) -> Sequence[Record]:
    source: Sequence[Record] = self._builder.as_data_source(self._name)
    return source

  @property
  def case_ids(self) -> list[str]:
    """The case ids, sorted; no volume is decoded."""
    return [case for case, _ in self._order]

  def read_geometry(self, index: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Reads shape `[3]` and affine of the record at a place in `case_ids`, but no volume."""
    record = self._geometry_source[self._order[index][1]]
    x, y, z = map(int, record["image"]["shape"])
    return (x, y, z), record["affine"]

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: Any) -> Any:
    """Decodes the record at a place in `case_ids`; for a slice, a list of records."""
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    record = self._record_source[self._order[index][1]]
    return {**record, "id": _decode_text(record["id"])}

  def __iter__(self) -> Iterator[Record]:
    return (self[place] for place in range(len(self)))


@dataclass(frozen=True)
class BuiltDataset:
  """A data set that has been built.

  Attributes:
    directory: where its files lie.
    splits: the records by split.
    labels: value of each label's name.
  """

  directory: Path
  splits: dict[str, SplitRecords]
  labels: dict[str, int]


def open_records(dataset: str, data_dir: str | Path) -> BuiltDataset:
  """Opens a data set that `python -m tfds_pancreas.build` has written.

  Args:
    dataset: 'NAME/CONFIG', as in 'phantom_ct/demo'.
    data_dir: the directory that was given to the build.

  Raises:
    UserError: it has not been built there.
  """
  directory = find_built_version(dataset, data_dir)
  if directory is None:
    command = f"python -m tfds_pancreas.build --dataset={dataset} --data_dir={data_dir}"
    raise UserError(f"{data_dir}: the data set {dataset!r} has not been built there; run {command}")
  logging.getLogger("absl").setLevel(logging.WARNING)  # TFDS logs each file that it loads
  builder = tfds.builder_from_directory(directory)
  splits = {name: SplitRecords(builder, name) for name in builder.info.splits}
  return BuiltDataset(directory, splits, dict(builder.info.metadata["labels"]))


def find_built_version(dataset: str, data_dir: str | Path) -> Path | None:
  """Returns the newest version of a data set under `data_dir`, or None."""
  # A build that is under way, or was killed, lies in a folder called incomplete.
  versions = [
    path.parent
    for path in Path(data_dir, dataset).glob("*.*.*/dataset_info.json")
    if "incomplete" not in path.parent.name
  ]
  return max(versions, key=_parse_version, default=None)


def _parse_version(directory: Path) -> tuple[int, ...]:
  # As numbers: 1.10.0 is newer than 1.9.0.
  return tuple(int(part) for part in directory.name.split("."))


def _decode_text(value: bytes | str) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)
