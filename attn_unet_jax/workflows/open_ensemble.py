"""Opens one run, or several whose predictions are averaged."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.inference.ensemble import EnsembleSystem
from attn_unet_jax.inference.postprocess import UNCHANGED
from attn_unet_jax.inference.quality import QualityModel, average_models
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.fold_runs import expand_fold_runs
from attn_unet_jax.workflows.load_run import LoadedRun, join_digests
from attn_unet_jax.workflows.open_run import open_run_or_stages

# What the members must have in common: the working grid, and what is made of the mean. How each
# normalises the intensities, and its windows, are its own.
_SHARED = (
  *("data.spacing_mm", "data.blur_mm", "data.target", "stages.count"),
  "inference.within_body",
  "inference.largest_component",
  "inference.one_piece",
)


def open_ensemble(workdirs: Sequence[Path]) -> LoadedRun:
  """Opens runs as one that averages their probabilities; one run is that run.

  A run of all folds stands for its folds, and a release of several networks for these. The steps
  after the network are taken if all runs chose the same.

  Raises:
    UserError: there is no run, a run is not finished, or the runs do not fit together.
  """
  workdirs = expand_fold_runs(workdirs)
  members = [open_run_or_stages(workdir) for workdir in workdirs]
  first = members[0]
  if len(members) == 1:
    return first
  # Each with the first alone: runs that equal it in a key equal each other.
  for workdir, member in zip(workdirs[1:], members[1:], strict=True):
    _check_fits(workdirs[0], first, workdir, member)
  if first.locate or first.config.data.boxes:
    raise UserError(
      f"{workdirs[0]}: works inside boxes, and such runs are not averaged; give one of them"
    )
  print_line(f"an ensemble of {len(members)} runs: their probabilities are averaged")
  # Steps were chosen for the masks of one member. Only what all chose is tried on their mean.
  steps = {member.postprocessing for member in members}
  if len(steps) > 1:
    print_line("no steps after the networks, since the runs chose different ones")
  # One mean of all networks, and not a mean of means.
  system = EnsembleSystem([one for member in members for one in _list_systems(member.system)])
  return dataclasses.replace(
    first,
    system=system,
    digest=join_digests([member.digest for member in members]),
    postprocessing=steps.pop() if len(steps) == 1 else UNCHANGED,
    quality=_average_quality(members),
    members=tuple(config for member in members for config in member.configs),
    networks=tuple(network for member in members for network in member.networks),
    agreement=system.agreement,
  )


def _list_systems(system: SegmentationSystem) -> tuple[SegmentationSystem, ...]:
  return system.members if isinstance(system, EnsembleSystem) else (system,)


def _average_quality(members: Sequence[LoadedRun]) -> dict[str, QualityModel]:
  """Returns the mean estimate of the members by class; none where one of them has none."""
  if not all(member.quality for member in members):
    return {}
  return {
    name: average_models([member.quality[name] for member in members])
    for name in members[0].classes
  }


def _check_fits(one: Path, first: LoadedRun, other: Path, member: LoadedRun) -> None:
  if first.classes != member.classes:
    raise UserError(
      f"{other}: has the classes {', '.join(member.classes)}, and {one} has "
      f"{', '.join(first.classes)}; only runs of the same classes are averaged"
    )
  ours, theirs = _list_shared_options(first.config), _list_shared_options(member.config)
  for key, value in ours.items():
    if value != theirs[key]:
      raise UserError(
        f"{other}: has {key}={theirs[key]}, and {one} has {value}; runs that are averaged must "
        "have the same"
      )


def _list_shared_options(config: RunConfig) -> dict[str, object]:
  keys = flatten(config)
  # Whether there are boxes at all: their file may have another name in each run.
  return {**{key: keys[key] for key in _SHARED}, "data.boxes": bool(config.data.boxes)}
