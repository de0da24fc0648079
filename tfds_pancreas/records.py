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

from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.volumes.volume import Grid
from tfds_pancreas.record_files import (
  WAY_OUT,
  find_versions,
  make_features,
  open_reader,
  read_labels,
  require_record_count,
)

Record = dict[str, Any]
REPORT_FILE = "build_report.json"  # beside the records of real scans
_MAX_REASON = 200  # characters of a library's reason that a message shows


def make_volume_info(
  builder: tfds.core.DatasetBuilder, labels: Mapping[str, int], description: str
) -> tfds.core.DatasetInfo:
  """Makes what a builder of labelled scans returns from `_info`.

  Args:
    builder: the builder itself.
    labels: name and value of each label.
    description: one paragraph about the data set.
  """
  return tfds.core.DatasetInfo(
    builder=builder,
    description=description,
    features=make_features(),
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
  """The records of one split in the order of their ids, decoded one by one when asked for.

  Raises:
    UserError: when a record is asked for that is damaged; the message names its file.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, name: str):
    self._builder, self._name = builder, name

  # One source for each purpose, so that no volume is inflated that is not asked for: the ids of
  # hundreds of scans are needed at the start of every run.

  @cached_property
  def _order(self) -> list[tuple[str, int]]:
    only_id = dict.fromkeys(("image", "label", "affine"), tfds.decode.SkipDecoding())
    found = self._builder.as_data_source(self._name, decoders=only_id)
    for part in self._builder.info.splits[self._name].file_instructions:
      require_record_count(Path(part.filename), part.examples_in_shard)
    ids = ((_decode_text(self._read(found, index)["id"]), index) for index in range(len(found)))
    return sorted(ids)

  @cached_property
  def _packed_source(self) -> Sequence[Record]:
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
    """Reads shape `[3]` and affine of the record at a place in `case_ids`, but no volume.

    Raises:
      UserError: the record is damaged, or they are no grid; the message names its file.
    """
    record = self.read_packed(index)
    shape, affine = record["image"]["shape"], record["affine"]
    self._require_sound(index, _find_grid_fault(shape, affine))
    x, y, z = map(int, shape)
    return (x, y, z), affine

  def read_packed(self, index: int) -> Record:
    """Reads the record at a place in `case_ids`; its volumes stay packed, as shape and bytes."""
    return self._read(self._packed_source, self._order[index][1])

  def find_file(self, index: int) -> Path:
    """Returns the file that holds the record at a place in `case_ids`."""
    return self._find_file(self._order[index][1])

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: Any) -> Any:
    """Decodes the record at a place in `case_ids`; for a slice, a list of records."""
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    case, place = self._order[index]
    record = self._read(self._record_source, place)
    self._require_sound(index, _find_fault(record))
    return {**record, "id": case}

  def __iter__(self) -> Iterator[Record]:
    return (self[place] for place in range(len(self)))

  def _require_sound(self, index: int, fault: str) -> None:
    if fault:
      case, place = self._order[index]
      raise UserError(f"{self._find_file(place)}: record {place}, {case}, {fault}; {WAY_OUT}")

  def _read(self, source: Sequence[Record], place: int) -> Record:
    """Reads the record at a place in the files."""
    try:
      return source[place]
    except Exception as error:  # Riegeli, protobuf, zlib and NumPy each raise their own
      if isinstance(error, OSError) and error.filename:
        raise  # the system's own, which names the file
      raise UserError(
        f"{self._find_file(place)}: record {place} of {self._name!r} is damaged "
        f"({format_error(error)[:_MAX_REASON]}); {WAY_OUT}"
      ) from None

  def _find_file(self, place: int) -> Path:
    for part in self._builder.info.splits[self._name].file_instructions:
      if place < part.examples_in_shard:
        break
      place -= part.examples_in_shard
    return Path(part.filename)


def _find_fault(record: Record) -> str:
  """Returns what keeps a record from being a labelled scan; '' if nothing does."""
  image, label = record["image"], record["label"]
  if image.ndim != 3 or image.shape != label.shape or not image.size:
    return f"has an image of {image.shape} and a label of {label.shape} voxels"
  return _find_grid_fault(image.shape, record["affine"])


def _find_grid_fault(shape: Any, affine: np.ndarray) -> str:
  """Returns what keeps a shape and an affine from being a grid; '' if nothing does."""
  try:
    Grid(shape, affine)
  except ValueError as error:
    return f"places its voxels on no grid ({format_error(error)[:_MAX_REASON]})"
  return ""


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
    UserError: it has not been built there, or a file of it is damaged.
  """
  directory = find_built_version(dataset, data_dir)
  if directory is None:
    command = f"python -m tfds_pancreas.build --dataset={dataset} --data_dir={data_dir}"
    raise UserError(f"{data_dir}: the data set {dataset!r} has not been built there; run {command}")
  logging.getLogger("absl").setLevel(logging.WARNING)  # TFDS logs each file that it loads
  reader = open_reader(directory)
  splits = {name: SplitRecords(reader, name) for name in reader.info.splits}
  return BuiltDataset(directory, splits, read_labels(directory))


def find_built_version(dataset: str, data_dir: str | Path) -> Path | None:
  """Returns the newest version of a data set under `data_dir`, or None."""
  return next(reversed(find_versions(Path(data_dir, dataset))), None)


def _decode_text(value: bytes | str) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)
