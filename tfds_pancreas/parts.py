"""What the workers of a build leave behind: of each case a part, and in the end the shards.

Workers share a folder and nothing else, so they may be threads, processes or machines. A part is a
record as it will be stored, a picture, and a JSON file that is written last: where it is, the part
is complete. Shards are put together from parts in the order of the ids, so the files are the same
bytes whoever made the parts and in whatever order.
"""

import json
import os
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from tfds_pancreas.checked_case import CaseFiles
from tfds_pancreas.contact_sheet import TILE
from tfds_pancreas.records import Record

# Level 6 takes 7 times as long for 1 % less: the noise of CT has no repetitions to find.
_ZLIB_LEVEL = 1
SHARD_BYTES = 256 << 20
_RECORD, _PICTURE, _KNOWN = ".record", ".rgb", ".json"


@dataclass
class Made:
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
class Part:
  """What is known of a case once its part is written; `size` is the stored record's, in bytes."""

  id: str
  size: int
  figures: dict[str, Any]
  problems: list[str]
  path: Path

  @property
  def picture(self) -> np.ndarray:
    """RGB uint8 [TILE, TILE, 3]."""
    pixels = self.path.with_suffix(_PICTURE).read_bytes()
    return np.frombuffer(pixels, np.uint8).reshape(TILE, TILE, 3)


@dataclass(frozen=True)
class WritePart:
  """Makes a case and writes its part; can be pickled.

  Attributes:
    make: from what was found of a case to the case made.
    serializer: from an encoded record to a protocol buffer.
  """

  make: Callable[[Any], Made]
  serializer: tfds.core.ExampleSerializer
  folder: Path

  def __call__(self, job: tuple[int, CaseFiles]) -> None:
    """Writes part number `job[0]`, made of the case `job[1]`."""
    path = self.folder / f"{job[0]:06d}"
    made = self._made(job[1])
    data = b"" if made.record is None else self._serialized(made.record)
    known = {"id": made.id, "size": len(data), "figures": made.figures, "problems": made.problems}
    _write(path.with_suffix(_RECORD), data)
    if made.picture is not None:
      _write(path.with_suffix(_PICTURE), made.picture.tobytes())
    _write(path.with_suffix(_KNOWN), json.dumps(known).encode())

  def _made(self, case: CaseFiles) -> Made:
    try:
      return self.make(case)
    except Exception as error:
      error.add_note(f"while making {case.id}")
      raise

  def _serialized(self, record: Record) -> bytes:
    # Protocol buffers order the entries of a map anew in each process, unless they are told not to.
    return self.serializer.get_tf_example(encode(record)).SerializeToString(deterministic=True)


@dataclass(frozen=True)
class Shard:
  """A file of records to be written, and the parts it is made of."""

  path: Path
  parts: Sequence[Part]


def encode(record: Record) -> dict[str, Any]:
  """A record as TFDS encodes it by the features of `volume_info`, but faster: see _ZLIB_LEVEL.

  Raises:
    ValueError: an array has another type or number of axes.
  """
  encoded: dict[str, Any] = {"id": record["id"].encode()}
  for name, dtype in (("image", np.int16), ("label", np.uint8)):
    array = record[name]
    if array.dtype != dtype or array.ndim != 3:
      raise ValueError(f"{record['id']}: {name} is {array.dtype} {array.shape}")
    encoded[name] = {"shape": array.shape, "value": _deflated(array)}
  affine = np.asarray(record["affine"], np.float64).reshape(4, 4)
  return encoded | {"affine": _deflated(affine)}


def _deflated(array: np.ndarray) -> bytes:
  return zlib.compress(np.ascontiguousarray(array).data, _ZLIB_LEVEL)


def _write(path: Path, data: bytes) -> None:
  """Writes a file in one step: a runner may have one piece of work done twice at the same time."""
  unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
  unfinished.write_bytes(data)
  unfinished.rename(path)


def finished(folder: Path) -> int:
  """How many parts are complete."""
  return sum(name.endswith(_KNOWN) for name in os.listdir(folder))


def read_part(folder: Path, number: int) -> Part:
  """What is known of a complete part."""
  path = folder / f"{number:06d}"
  return Part(**json.loads(path.with_suffix(_KNOWN).read_bytes()), path=path)


def divide(parts: Sequence[Part], shards: int | None) -> list[list[Part]]:
  """Parts in the order of their ids, divided evenly over shards; None decides by SHARD_BYTES."""
  wanted = shards or -(-sum(part.size for part in parts) // SHARD_BYTES)
  count = max(1, min(wanted, len(parts)))
  ordered = sorted(parts, key=lambda part: part.id)
  borders = [round(len(parts) * number / count) for number in range(count + 1)]
  return [ordered[borders[i] : borders[i + 1]] for i in range(count)]


def write_shard(shard: Shard) -> None:
  """Writes a shard and removes the records of its parts.

  Raises:
    OSError: the disk is full.
  """
  if shard.path.exists():
    return  # a runner may have work that is done done again
  unfinished = shard.path.with_name(f"{shard.path.name}.{uuid.uuid4().hex}")
  try:
    writer = ArrayRecordWriter(str(unfinished), "group_size:1")
    for part in shard.parts:
      writer.write(part.path.with_suffix(_RECORD).read_bytes())
    writer.close()
  except RuntimeError as error:  # all that ArrayRecord raises
    raise OSError(str(error)) from error
  unfinished.rename(shard.path)
  for part in shard.parts:
    part.path.with_suffix(_RECORD).unlink()
