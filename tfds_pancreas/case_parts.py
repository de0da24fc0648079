"""What the workers of a build leave behind: a part for each case, and in the end the shards.

Workers share a folder and nothing else, so they may be threads, processes or machines. A part is a
record as it will be stored, a picture, and a JSON file that is written last: where it is, the part
is complete. Shards are put together from parts in the order of the ids, so the files have equal
bytes for any number of workers and any order of their work.
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from attn_unet_jax.runtime.files import atomic_write
from tfds_pancreas.checked_case import CaseInput
from tfds_pancreas.contact_sheet import TILE
from tfds_pancreas.records import Record

# Level 6 takes 7 times as long for 1 % less: the noise of CT has no repetitions to find.
_ZLIB_LEVEL = 1
SHARD_BYTES = 256 << 20
_RECORD, _PICTURE, _SUMMARY = ".record", ".rgb", ".json"


@dataclass
class MadeCase:
  """A case as its maker returns it; `record` is None where it cannot be used.

  Attributes:
    figures: for the report; JSON can hold them.
    problems: why it cannot be used.
    picture: RGB uint8 [TILE, TILE, 3] for the contact sheets.
  """

  id: str
  record: Record | None
  figures: dict[str, Any] = field(default_factory=dict)
  problems: list[str] = field(default_factory=list)
  picture: np.ndarray | None = None


@dataclass(frozen=True)
class CasePart:
  """A case on disk; `size` is the bytes of its record, 0 for a case that cannot be used."""

  id: str
  size: int
  figures: dict[str, Any]
  problems: list[str]
  path: Path

  @property
  def picture(self) -> np.ndarray:
    """The case's picture, RGB uint8 [TILE, TILE, 3]."""
    pixels = self.path.with_suffix(_PICTURE).read_bytes()
    return np.frombuffer(pixels, np.uint8).reshape(TILE, TILE, 3)


@dataclass(frozen=True)
class PartWriter:
  """A function that makes a case and writes its part; it can be pickled.

  Attributes:
    make: from a case's input to the case made.
    serializer: from an encoded record to a protocol buffer.
    folder: where the parts go.
  """

  make: Callable[[Any], MadeCase]
  serializer: tfds.core.ExampleSerializer
  folder: Path

  def __call__(self, job: tuple[int, CaseInput]) -> None:
    """Writes part number `job[0]`, made of the case `job[1]`."""
    # By number: an id need not be a name that a file may have.
    path = self.folder / f"{job[0]:06d}"
    made = self._make_case(job[1])
    data = b"" if made.record is None else self._serialize(made.record)
    summary = {"id": made.id, "size": len(data), "figures": made.figures, "problems": made.problems}
    _write_bytes(path.with_suffix(_RECORD), data)
    if made.picture is not None:
      _write_bytes(path.with_suffix(_PICTURE), made.picture.tobytes())
    _write_bytes(path.with_suffix(_SUMMARY), json.dumps(summary).encode())

  def _make_case(self, case: CaseInput) -> MadeCase:
    try:
      return self.make(case)
    except Exception as error:
      # An error that nobody expected does not tell which of many scans it is about.
      error.add_note(f"while making {case.id}")
      raise

  def _serialize(self, record: Record) -> bytes:
    # Protocol buffers order the entries of a map differently in each process, unless told not to.
    example = self.serializer.get_tf_example(encode_record(record))
    return bytes(example.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class ShardPlan:
  """A file of records to be written, and the parts it is made of."""

  path: Path
  parts: Sequence[CasePart]


def encode_record(record: Record) -> dict[str, Any]:
  """Encodes a record by the features of `make_volume_info`, as TFDS does but faster.

  Raises:
    ValueError: an array has another type or number of axes.
  """
  encoded: dict[str, Any] = {"id": record["id"].encode()}
  for name, dtype in (("image", np.int16), ("label", np.uint8)):
    array = record[name]
    if array.dtype != dtype or array.ndim != 3:
      raise ValueError(f"{record['id']}: {name} is {array.dtype} {array.shape}")
    encoded[name] = {"shape": array.shape, "value": _compress_array(array)}
  affine = np.asarray(record["affine"], np.float64).reshape(4, 4)
  return encoded | {"affine": _compress_array(affine)}


def _compress_array(array: np.ndarray) -> bytes:
  return zlib.compress(np.ascontiguousarray(array).data, _ZLIB_LEVEL)


def _write_bytes(path: Path, data: bytes) -> None:
  # In one step: a runner may have one piece of work done twice at the same time.
  with atomic_write(path) as unfinished:
    unfinished.write_bytes(data)


def count_finished_parts(folder: Path) -> int:
  """Counts the parts that are complete."""
  return sum(name.endswith(_SUMMARY) for name in os.listdir(folder))


def read_part(folder: Path, number: int) -> CasePart:
  """Reads what is known of a complete part."""
  path = folder / f"{number:06d}"
  return CasePart(**json.loads(path.with_suffix(_SUMMARY).read_bytes()), path=path)


def divide_into_shards(parts: Sequence[CasePart], shards: int | None) -> list[list[CasePart]]:
  """Divides parts, in the order of their ids, evenly over shards; None decides by SHARD_BYTES."""
  # Rounded up, so that a shard has no more than that on average.
  wanted = shards or -(-sum(part.size for part in parts) // SHARD_BYTES)
  count = max(1, min(wanted, len(parts)))
  ordered = sorted(parts, key=lambda part: part.id)
  borders = [round(len(parts) * number / count) for number in range(count + 1)]
  return [ordered[borders[i] : borders[i + 1]] for i in range(count)]


def write_shard(shard: ShardPlan) -> None:
  """Writes a shard and removes the records of its parts.

  Raises:
    OSError: the disk is full.
  """
  if shard.path.exists():
    return  # a runner may repeat work that is done, and the records are gone by then
  with atomic_write(shard.path) as unfinished:
    try:
      # One record a group: reading a scan then decodes no other.
      writer = ArrayRecordWriter(str(unfinished), "group_size:1")
      for part in shard.parts:
        writer.write(part.path.with_suffix(_RECORD).read_bytes())
      writer.close()
    except RuntimeError as error:  # all that ArrayRecord raises
      raise OSError(str(error)) from error
  # Now rather than at the end, so that a build needs the room of its records only once.
  for part in shard.parts:
    part.path.with_suffix(_RECORD).unlink()
