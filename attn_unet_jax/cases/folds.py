"""Folds: which cases are for training, validation and test. Folds are data, never code.

A list of folds is JSON: `{"name": ..., "folds": [{"training": [ids], "validation": [ids],
"test": [ids]}, ...]}`. A case may be in several parts of a fold: a list that puts one scan
into all three is taken as intended. The lists in `fold_lists/` give their source and a note, and
are chosen by name.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json

PARTS = ("training", "validation", "test")
# The key of a run's own list of folds for the cases of its second data set.
ALSO = "also"
# The number of a fold, or all of them.
FoldChoice = int | Literal["all"]
_HASH_FOLDS = 5
_PACKAGED = Path(__file__).parent / "fold_lists"


@dataclasses.dataclass(frozen=True)
class CaseSplit:
  """The case ids of one fold."""

  training: tuple[str, ...]
  validation: tuple[str, ...]
  test: tuple[str, ...]

  @property
  def ids(self) -> tuple[str, ...]:
    """The cases of all parts, each once, sorted."""
    return tuple(sorted({*self.training, *self.validation, *self.test}))


def leave_out_missing(listing: Mapping[str, Any], ids: Collection[str]) -> dict[str, Any]:
  """Returns a list of folds without the cases that are not among `ids`."""
  kept = [
    {part: [case for case in fold[part] if case in ids] for part in PARTS}
    for fold in listing["folds"]
  ]
  return {**listing, "folds": kept}


def by_hash(ids: Sequence[str]) -> list[dict[str, list[str]]]:
  """Divides cases into five folds by a hash of their ids; sizes differ by one at most.

  Fold k tests on group k, validates on group k + 1 and trains on the rest. The order of the files
  does not matter, and a case keeps its place in the order when others are renamed.
  """
  # By hash the order of two cases depends on their ids alone, not on files, machine or version.
  ordered = sorted(ids, key=lambda case: hashlib.sha256(case.encode()).hexdigest())
  groups = [sorted(ordered[k::_HASH_FOLDS]) for k in range(_HASH_FOLDS)]
  folds = []
  for k in range(_HASH_FOLDS):
    test, validation = groups[k], groups[(k + 1) % _HASH_FOLDS]
    training = sorted(set(ids) - set(test) - set(validation))
    folds.append({"training": training, "validation": validation, "test": test})
  return folds


def choose_split(
  ids: Sequence[str],
  own: Mapping[str, Sequence[str]] | None,
  folds: str,
  fold: FoldChoice,
  *,
  without_gone: bool = False,
) -> tuple[CaseSplit, dict[str, Any]]:
  """Chooses the split of a run, and returns it with the list of folds that it comes from.

  Args:
    ids: every case of the data set.
    own: the data set's own parts, if it has them. They are used when `folds` is ''.
    folds: `config.data.folds`: '', the name of a list in `fold_lists/`, or a JSON file.
    fold: `config.data.fold`; `all` pools the folds, see `pool_folds`.
    without_gone: leave out the cases of the list that are not in the data.

  Raises:
    UserError: the list or the fold does not exist, a case is not in the data, or a part is empty.
  """
  if folds:
    listing = read_folds(_find_list(folds))
    if without_gone:
      listing = leave_out_missing(listing, set(ids))
  elif own is not None:
    listing = {"name": "the data set's own", "folds": [{part: list(own[part]) for part in PARTS}]}
  else:
    listing = {"name": "five by hash of the case id", "folds": by_hash(ids)}
  chosen = pick_fold(listing, fold)
  for one in listing["folds"] if fold == "all" else [chosen]:
    _check_lists(one, ids, listing["name"])
  return CaseSplit(**{part: tuple(chosen[part]) for part in PARTS}), listing


def pick_fold(listing: Mapping[str, Any], fold: FoldChoice) -> Mapping[str, Sequence[str]]:
  """Returns the fold of that number, or all folds pooled: case ids by part.

  Raises:
    UserError: the list has fewer folds, or they cannot be pooled.
  """
  if fold == "all":
    return pool_folds(listing)
  if not 0 <= fold < len(listing["folds"]):
    raise UserError(
      f"config.data.fold={fold}: the list {listing['name']!r} has folds 0 to "
      f"{len(listing['folds']) - 1}"
    )
  result: Mapping[str, Sequence[str]] = listing["folds"][fold]
  return result


def pool_folds(listing: Mapping[str, Any]) -> dict[str, list[str]]:
  """Returns the cases of each part of any fold: those of `test` are tested once, by one network.

  Raises:
    UserError: there is one fold alone, or a case is tested in several.
  """
  name, count = listing["name"], len(listing["folds"])
  if count < 2:
    raise UserError(
      f"config.data.fold=all: the list {name!r} has one fold; name a list of several by "
      "--config.data.folds=FILE.json, or train this one by --config.data.fold=0"
    )
  # A case that one fold names twice is tested once.
  tested = collections.Counter(case for fold in listing["folds"] for case in set(fold["test"]))
  if twice := sorted(case for case, times in tested.items() if times > 1):
    raise UserError(
      f"config.data.fold=all: the list {name!r} tests {twice[0]} in several folds, and scores over "
      "all folds have each case once; train the folds one by one by --config.data.fold=0, 1, ..."
    )
  return {
    part: sorted({case for fold in listing["folds"] for case in fold[part]}) for part in PARTS
  }


def _find_list(folds: str) -> Path:
  # No clash with a user's FILE.json, since the names of packaged lists are given without a suffix.
  packaged = _PACKAGED / f"{folds}.json"
  return packaged if packaged.is_file() else Path(folds)


def read_folds(path: Path) -> dict[str, Any]:
  """Reads a list of folds from a JSON file.

  Raises:
    UserError: the file is missing, or is not a list of folds.
  """
  way_out = '{"name": ..., "folds": [{"training": [...], "validation": [...], "test": [...]}]}'
  try:
    listing = read_json(path)
  except OSError as error:
    names = ", ".join(sorted(packaged.stem for packaged in _PACKAGED.glob("*.json")))
    raise UserError(
      f"config.data.folds={path}: {error.strerror}; name a JSON file, or one of {names}"
    ) from None
  except ValueError:
    listing = None  # not JSON at all: the message below fits this too
  if not _is_listing(listing):
    raise UserError(f"{path}: not a list of folds; write {way_out}")
  # The name is optional in a user's file, but messages and the run's own list need one.
  return {"name": path.stem, **listing}


def _is_listing(listing: Any) -> bool:
  folds = listing.get("folds") if isinstance(listing, dict) else None
  if not isinstance(folds, list) or not folds:
    return False
  return all(
    isinstance(fold, dict)
    and isinstance(fold.get(part), list)
    and all(isinstance(case, str) for case in fold[part])
    for fold in folds
    for part in PARTS
  )


def _check_lists(fold: Mapping[str, Sequence[str]], ids: Sequence[str], name: str) -> None:
  for part in PARTS:
    missing = sorted(set(fold[part]) - set(ids))
    if missing:
      raise UserError(
        f"folds {name!r}: {part} cases {missing[:5]} are not in the data, which has "
        f"{len(ids)} cases such as {sorted(ids)[0]!r}; add them, or give a list without them with "
        "--config.data.folds=FILE.json"
      )
    if not fold[part]:
      raise UserError(
        f"folds {name!r}: the {part} part is empty ({len(ids)} cases in the data); add cases, or "
        "give a list with --config.data.folds=FILE.json (a scan may be in several parts)"
      )
