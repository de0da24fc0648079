"""The inner folds of a run in stages: which training cases each of them holds out."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.folds import CaseSplit
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json, write_text

_FILE = "inner.json"
Groups = list[tuple[str, ...]]


def deal_groups(training: Sequence[str], count: int) -> Groups:
  """Divides training cases into groups, each of which one inner fold holds out.

  Cases are ordered by a hash of their ids and divided into groups whose sizes differ by one at
  most.

  Raises:
    UserError: there are fewer training cases than groups.
  """
  if len(training) < count:
    raise UserError(
      f"config.stages.inner_folds={count}: there are only {len(training)} training cases"
    )
  # Python's own hash of a text is another one in each process.
  ordered = sorted(training, key=lambda case: hashlib.sha256(case.encode()).hexdigest())
  return [tuple(sorted(ordered[k::count])) for k in range(count)]


def split_groups(split: CaseSplit, groups: Groups, workdir: Path) -> list[CaseSplit]:
  """Returns the inner folds: each holds out, as `test`, what is left of a group.

  Inner folds validate on the validation cases of the whole run, so that no held-out case
  influences the choice of a checkpoint.

  Args:
    split: the run's own cases today.
    groups: the groups as they were dealt.
    workdir: the folder of the run, for the message.

  Raises:
    UserError: of a group, or of what its fold trains on, no case is left.
  """
  splits: list[CaseSplit] = []
  for group in groups:
    held_out = tuple(case for case in group if case in split.training)
    others = tuple(case for case in split.training if case not in group)
    if not (held_out and others):
      raise UserError(
        f"{workdir / _FILE}: inner fold {len(splits)} has no case left to "
        f"{'train on' if held_out else 'hold out'}; put the data back, or train in another "
        "--workdir"
      )
    splits.append(CaseSplit(others, split.validation, held_out))
  return splits


def write_groups(workdir: Path, groups: Groups) -> None:
  """Writes the groups into the folder of the run."""
  write_text(workdir / _FILE, json.dumps(groups, indent=1) + "\n")


def recall_groups(workdir: Path, fold: DataFold, count: int) -> Groups:
  """Returns the groups of a run, which stay as they were dealt when it began.

  If they were dealt anew without a case that is gone, networks that are trained already would be
  asked about cases that they have seen.

  Args:
    workdir: the folder of the run, with its list of folds as it was before this start.
    fold: the data of this start.
    count: number of inner folds.

  Raises:
    UserError: there are fewer training cases than groups, or the file is damaged.
  """
  if not has_progress(workdir):
    return deal_groups(fold.split.training, count)
  if groups := _read_groups(workdir):
    return groups
  # An earlier version wrote no groups, and dealt them of the cases in this list.
  listed = folds.pick_fold(folds.read_folds(workdir / "folds.json"), fold.data.fold)
  return deal_groups(listed["training"], count)


def _read_groups(workdir: Path) -> Groups | None:
  """Reads the groups of a run; None if it wrote none.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / _FILE
  try:
    groups = read_json(path)
  except FileNotFoundError:
    return None
  except ValueError:
    groups = None
  fits = isinstance(groups, list) and all(
    isinstance(group, list) and all(isinstance(case, str) for case in group) for group in groups
  )
  if not (groups and fits):
    raise UserError(f"{path}: not the inner folds of this run; bring it back from a backup")
  return [tuple(group) for group in groups]
