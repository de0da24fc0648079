"""Opens the data of a run, and checks that a resumed run has the data that it began with."""

import dataclasses
import json
from pathlib import Path

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.dataset import open_dataset
from attn_unet_jax.cases.digests import (
  DataDigests,
  describe_changes,
  digest_cases,
  list_changed,
  read_digests,
)
from attn_unet_jax.cases.fold import DataFold, open_fold
from attn_unet_jax.cases.second_set import list_gone_cases, second_options
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text

DIGESTS = "digests.json"
_ACCEPT = "data.accept_changes"


@dataclasses.dataclass(frozen=True)
class RunData:
  """The data of a run.

  Attributes:
    config: the run's config, in which no change of the data is accepted any more: what this start
      accepts, the next one does not.
    fold: the data set and the fold.
    digests: of the cases; None on all hosts but the primary.
    accepted: the changes that this start accepts, in words; '' if there are none.
  """

  config: RunConfig
  fold: DataFold
  digests: DataDigests | None = None
  accepted: str = ""

  def write(self, workdir: Path) -> None:
    """Writes into the folder of the run which cases it trains on, and their digests."""
    # From now on these files say which cases are trained on, even if the data changes.
    write_text(workdir / "folds.json", self.fold.to_json())
    if self.digests:
      write_text(workdir / DIGESTS, json.dumps(self.digests.to_json(), indent=1) + "\n")


def open_run_data(config: RunConfig, workdir: Path, listing: Path | None = None) -> RunData:
  """Opens the data of a run that begins or is resumed. All hosts call this.

  Args:
    config: the run's config.
    workdir: its folder.
    listing: the list of folds for a run that begins, with its boxes beside it; None: the config's.

  Raises:
    UserError: the data is missing or does not fit; or the run is resumed, a scan or a label has
      changed, appeared or gone, and `data.accept_changes` is not set or, with a change of a run in
      stages, does not help. Nothing has been written.
  """
  accepts = config.data.accept_changes
  config = replace_keys(config, {_ACCEPT: False})
  begun = hosts.run_on_primary(has_progress, workdir)
  # Beside the answer, which travels between hosts as JSON: only the primary host writes digests.
  found: list[DataDigests] = []
  if not begun:
    # Only a list that was written before can name a case that is gone.
    fold = open_fold(config.data, listing, without_gone=accepts and listing is not None)
    # One host reads every scan; the others need no digests.
    hosts.run_on_primary(lambda: found.append(_digest_fold(fold)))
    return RunData(config, fold, found[0] if found else None)
  own = workdir / "folds.json"

  def compare_data() -> str:
    """Returns the changes of the data in words, and keeps the digests of today."""
    changes, digests = _compare_data(config, workdir, own)
    if changes and not accepts:
      raise UserError(
        f"{workdir}: the data is not what the run began with ({changes}); put it back, choose "
        f"another --workdir, or go on with it by --config.{_ACCEPT}=true"
      )
    found.append(digests)
    return changes

  # A missing list is refused by `open_fold`.
  changes = hosts.run_on_primary(compare_data) if own.exists() else ""
  # Where a case is gone, the run goes on without it only if that is accepted.
  fold = open_fold(config.data, own, without_gone=accepts)
  if accepts and config.data.also:
    fold = _leave_out_gone(fold)
  if changes:
    print_line(f"accepted changes of the data: {changes}")
  return RunData(config, fold, found[0] if found else None, changes)


def _digest_fold(fold: DataFold) -> DataDigests:
  """Digests the cases of a run that begins."""
  own = digest_cases(fold.dataset, fold.split.ids)
  if not fold.data.also:
    return own
  second = open_dataset(second_options(fold.data))
  return dataclasses.replace(own, also=digest_cases(second, fold.listing[folds.ALSO]))


def _leave_out_gone(fold: DataFold) -> DataFold:
  """Leaves out the cases that are gone from the second set."""
  also = fold.listing[folds.ALSO]
  gone = list_gone_cases(fold.data, also)
  kept = [case for case in also if case not in gone]
  return dataclasses.replace(fold, listing={**fold.listing, folds.ALSO: kept})


def _compare_data(config: RunConfig, workdir: Path, listing: Path) -> tuple[str, DataDigests]:
  """Returns the changes of the data since the run began, in words, and the digests of today.

  Raises:
    UserError: an image or a label of a run in stages has changed.
  """
  dataset, known = open_dataset(config.data), read_digests(workdir / DIGESTS)
  written = folds.read_folds(listing)
  own = folds.pick_fold(written, config.data.fold)
  ids = {case for part in folds.PARTS for case in own[part]}
  # Cases that are gone have nothing to read. `describe_changes` names them.
  now = digest_cases(dataset, ids & set(dataset.ids), known)
  changes = describe_changes(ids, known, now)
  if config.stages.count > 1 and (changed := list_changed(known, now)):
    _, _, case = changed[0].partition(" of ")
    raise UserError(
      f"{workdir}: the data is not what the run began with ({changes}), and the stages have boxes "
      f"and tables of the old {case}; put it back, or train in another --workdir"
    )
  has_second = bool(config.data.also) and folds.ALSO in written
  if known is None or (has_second and known.also is None):
    print_line(
      f"{workdir}: an earlier version recorded no digests of the data; from now on they are there"
    )
  if not has_second:
    return changes, now
  second, also = open_dataset(second_options(config.data)), set(written[folds.ALSO])
  before = known.also if known else None
  then = digest_cases(second, also & set(second.ids), before)
  if told := describe_changes(also, before, then):
    changes = "; ".join(filter(None, [changes, f"of config.data.also: {told}"]))
  return changes, dataclasses.replace(now, also=then)
