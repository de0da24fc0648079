"""Digests of images and labels: whether a run goes on with the data that it began with.

A digest is SHA-256 of the bytes of a file, or of a record. Beside it stands the stamp of the file:
its size and the times of its last change. A file whose stamp is as it was is not read again, so
that a start on unchanged data costs the look-up of each file alone.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.dataset import Dataset
from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object

_FORMAT = 1
_SHOWN = 5  # cases that a message names
# What this process knows, by data set, case and stamp: a run opens its data set more than once.
_known_here: dict[tuple[Path, str, tuple[int, ...]], "CaseDigest"] = {}


@dataclasses.dataclass(frozen=True)
class CaseDigest:
  """The digests of image and label of a case, and the stamp of the files that they are of."""

  image: str
  label: str
  stamp: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataDigests:
  """The data of a run.

  Attributes:
    cases: the digests of its cases by id.
    ids: all cases of the data set.
    also: the same of the second data set; None where there is none, or nothing is known of it.
  """

  cases: Mapping[str, CaseDigest]
  ids: Sequence[str]
  also: "DataDigests | None" = None

  def to_json(self) -> dict[str, Any]:
    """Returns the content of the file that `read_digests` reads."""
    also = {"also": self.also._list_cases()} if self.also else {}
    return {"format": _FORMAT, **self._list_cases(), **also}

  def _list_cases(self) -> dict[str, Any]:
    cases = {case: dataclasses.asdict(digest) for case, digest in self.cases.items()}
    return {"cases": cases, "ids": list(self.ids)}


def read_digests(path: Path) -> DataDigests | None:
  """Reads the digests of a run; None if it recorded none.

  Raises:
    UserError: the file is damaged.
  """
  way_out = "remove it: the run then goes on with the data as it is, and records it"
  content = read_json_object(path, way_out)
  if not content:
    return None
  try:
    if content["format"] != _FORMAT:
      raise ValueError(f"format {content['format']!r} of another version")
    also = content.get("also")
    return _read_cases(content, _read_cases(also) if also is not None else None)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f"{path}: not the digests of a run's data ({error}); {way_out}") from None


def _read_cases(content: Mapping[str, Any], also: DataDigests | None = None) -> DataDigests:
  cases = {
    str(case): CaseDigest(
      str(said["image"]), str(said["label"]), tuple(int(number) for number in said["stamp"])
    )
    for case, said in content["cases"].items()
  }
  return DataDigests(cases, [str(case) for case in content["ids"]], also)


def digest_cases(
  dataset: Dataset, ids: Iterable[str], known: DataDigests | None = None
) -> DataDigests:
  """Digests cases; those whose files have the stamp that is known are not read.

  Args:
    dataset: the data set.
    ids: the cases of the run.
    known: what the run recorded before.

  Raises:
    UserError: a file cannot be read.
  """
  before = known.cases if known else {}
  ids = sorted(set(ids))
  # Reading and hashing release the interpreter's lock, and more threads than cores hide the disk.
  with ThreadPoolExecutor(min(8, 2 * count_usable_cores())) as threads:
    digests = threads.map(lambda case: digest_case(dataset, case, before.get(case)), ids)
    return DataDigests(dict(zip(ids, digests, strict=True)), list(dataset.ids))


def digest_case(dataset: Dataset, case: str, known: CaseDigest | None = None) -> CaseDigest:
  """Digests a case, whose files are not read if their stamp is known.

  Args:
    dataset: the data set.
    case: the case's id.
    known: what a run recorded of it before.

  Raises:
    UserError: a file cannot be read.
  """
  # The stamp first: a file that changes meanwhile has another one next time, and is read again.
  stamp = dataset.read_stamp(case)
  place = (dataset.location, case, stamp)
  if place not in _known_here:
    same = known if known and known.stamp == stamp else None
    _known_here[place] = same or CaseDigest(*dataset.compute_digest(case), stamp)
  return _known_here[place]


def describe_changes(ids: Iterable[str], known: DataDigests | None, now: DataDigests) -> str:
  """Names what has changed, appeared or gone since a run began; '' if nothing has.

  Args:
    ids: the cases of the run.
    known: what the run recorded; None: an earlier version recorded nothing.
    now: of the cases of the run that are still there.
  """
  changed = list_changed(known, now)
  expected = set(ids) | set(known.ids if known else ())
  gone = sorted(expected - set(now.ids))
  # Without a record nobody knows which of the other cases were there when the run began.
  new = sorted(set(now.ids) - expected) if known else []
  said = {"changed": changed, "gone": gone, "new, and in no part of the run": new}
  return "; ".join(f"{what}: {_list_some(names)}" for what, names in said.items() if names)


def list_changed(known: DataDigests | None, now: DataDigests) -> list[str]:
  """Lists the images and labels that are there but not what they were: `image of CASE`."""
  before = known.cases if known else {}
  pairs = [(case, before[case], digest) for case, digest in now.cases.items() if case in before]
  changed = [f"image of {case}" for case, then, at_hand in pairs if then.image != at_hand.image]
  return changed + [
    f"label of {case}" for case, then, at_hand in pairs if then.label != at_hand.label
  ]


def _list_some(names: Sequence[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more
