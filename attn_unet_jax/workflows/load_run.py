"""Opens a run or a release: its config, its classes and its best parameters."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.inference.agreement import MemberAgreement
from attn_unet_jax.inference.ensemble import EnsembleSystem
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.quality import MaskQuality, QualityModel, estimate_quality
from attn_unet_jax.inference.segment import Locate, ScanProbabilities
from attn_unet_jax.inference.sliding import SegmentationSystem, SlidingWindow
from attn_unet_jax.labels import class_names
from attn_unet_jax.models.ops.onednn_conv import has_onednn
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runs.release import WAY_OUT, is_release, read_release
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.xla import make_deterministic
from attn_unet_jax.training.read_checkpoint import restore_best, restore_step
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.weights.released import load_variables
from attn_unet_jax.workflows.network import build_run_network, use_own_forms
from attn_unet_jax.workflows.quality_record import read_quality
from attn_unet_jax.workflows.steps_record import read_steps


@dataclasses.dataclass(frozen=True)
class BestCheckpoint:
  """The best checkpoint of a run, or the one that was asked for; `classes` lack the background."""

  config: RunConfig
  classes: tuple[str, ...]
  module: nn.Module
  variables: dict[str, Any]
  step: int


# Arrays and what was compiled of them cannot be compared by value.
@dataclasses.dataclass(frozen=True, eq=False)
class LoadedNetwork:
  """A network of a run: the run's folder, its checkpoint, and what slides it over a scan."""

  workdir: Path
  found: BestCheckpoint
  system: SlidingWindow


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """A run ready to segment.

  `step` is that of its checkpoint; `locate` finds the box to segment, None is the whole scan.
  `digest` is one of everything that an answer depends on beside the scan and `postprocessing`, the
  steps after the network; '' where it is unknown. `unprocessed` says that those that the run chose
  are left out, as was asked. `mirrors` has the axes along which `system` averages over mirror
  images, `scales` the scales of further copies. `members` has the configs of the networks that an
  ensemble averages; of a single one it is empty. `networks` are those that `system` and `locate`
  use; `engine` is what computes them, with its version. `quality` estimates by class how good a
  mask is; empty where the probabilities do not tell. `agreement` is how far the members agree; None
  for a single network.
  """

  config: RunConfig
  classes: tuple[str, ...]
  system: SegmentationSystem
  step: int
  locate: Locate | None = None
  digest: str = ""
  postprocessing: Postprocessing = UNCHANGED
  unprocessed: bool = False
  mirrors: tuple[int, ...] = ()
  scales: tuple[float, ...] = ()
  members: tuple[RunConfig, ...] = ()
  networks: tuple[LoadedNetwork, ...] = ()
  engine: str = f"jax {jax.__version__}"
  quality: Mapping[str, QualityModel] = dataclasses.field(default_factory=dict)
  agreement: MemberAgreement | None = None

  @property
  def configs(self) -> tuple[RunConfig, ...]:
    """The configs of all networks that answer."""
    return self.members or (self.config,)

  def estimate_quality(self, found: ScanProbabilities) -> dict[str, MaskQuality]:
    """Estimates by class the DSC of what `system` has just said; empty where nothing tells it."""
    if not self.quality:
      return {}
    agreement = self.agreement.measure() if self.agreement else ()
    return estimate_quality(found, self.quality, agreement)

  def forget_agreement(self) -> None:
    """Makes the next scan the first one that members are said to agree about."""
    if self.agreement:
      self.agreement.clear()


def load_best(workdir: Path, step: int | None = None) -> BestCheckpoint:
  """Loads the best checkpoint of a run by validation DSC, or the newest if none was validated.

  That of a release is its only one; where a release has several networks, it is their first.

  Args:
    workdir: the run's folder.
    step: the step of another checkpoint, instead of the best.

  Raises:
    UserError: there is no run, or it has no intact checkpoint, or none of that step.
  """
  return _load(workdir, step, 1)[0]


def load_networks(workdir: Path) -> list[BestCheckpoint]:
  """Loads all networks that a run averages: its best checkpoint, or those of a release of several.

  Raises:
    UserError: as of `load_best`.
  """
  return _load(workdir, None, None)


def _load(workdir: Path, step: int | None, count: int | None) -> list[BestCheckpoint]:
  """Loads the first `count` networks of a run, or all of them."""
  # First of all: a damaged file must not be taken for what it says.
  release = read_release(workdir) if is_release(workdir) else None
  config = load_config(workdir / "config.json")
  if config.deterministic:
    make_deterministic()  # before anything is compiled, for results like those in training
  if config.stages.count > 1:
    raise UserError(
      f"{workdir}: a run of several stages; name one of them, such as {workdir}/stage1"
    )
  if config.data.fold == "all":
    raise UserError(f"{workdir}: a run of all folds; name one of them, such as {workdir}/fold_0")
  classes = class_names(config.data.labels)
  module = build_run_network(config, len(classes) + 1)
  if not has_onednn():
    # How a run was trained does not bind its user: rounding aside, all forms compute the same.
    module = use_own_forms(module)
  if release:
    if step not in (None, release.checkpoint_step):
      only = f"its only checkpoint is of step {release.checkpoint_step}"
      raise UserError(f"{workdir}: a release; {only}, and none of step {step}")
    # A release has parameters and statistics, and nothing of the optimiser.
    values = abstract_state(config, module).variables
    return [
      BestCheckpoint(
        config,
        classes,
        module,
        load_variables(workdir / name, values, WAY_OUT),
        release.checkpoint_step,
      )
      for name in release.parameter_files[:count]
    ]
  if not has_progress(workdir):
    raise UserError(f"{workdir}: no checkpoint yet; train it with attn_unet_jax.main first")
  # Restoring needs the shapes of the parameters only, not their values.
  folder, like = workdir / "checkpoints", abstract_state(config, module)
  state = restore_best(folder, like) if step is None else restore_step(folder, step, like)
  return [BestCheckpoint(config, classes, module, state.variables, int(state.step))]


def open_run(workdir: Path) -> LoadedRun:
  """Opens a run with its best checkpoint, or a release, and the steps that it chose for it.

  Raises:
    UserError: there is no run, it has no checkpoint, or what it chose is damaged.
  """
  all_found = load_networks(workdir)
  found = all_found[0]
  first = SlidingWindow(found.config, found.module, announce=True).use(found.variables)
  windows = [first, *(first.share(one.variables) for one in all_found[1:])]
  mean = EnsembleSystem(windows) if len(windows) > 1 else None
  return LoadedRun(
    found.config,
    found.classes,
    mean or first,
    found.step,
    digest=digest_networks(all_found),
    postprocessing=read_steps(workdir, found.step, found.config.inference),
    members=tuple(one.config for one in all_found) if mean else (),
    networks=tuple(
      LoadedNetwork(workdir, one, window) for one, window in zip(all_found, windows, strict=True)
    ),
    quality=read_quality(workdir, found.classes, found.step),
    agreement=mean.agreement if mean else None,
  )


def digest_networks(all_found: Sequence[BestCheckpoint]) -> str:
  """Returns a hexadecimal digest of the networks that a run averages, as of `digest_checkpoint`."""
  return join_digests([digest_checkpoint(one) for one in all_found])


def join_digests(digests: Sequence[str]) -> str:
  """Returns the digest of what is averaged: of one network its own; '' where one is unknown."""
  if len(digests) == 1:
    return digests[0]
  # Of an unknown member the answer is unknown, and is made each time.
  return hashlib.sha256(repr([*digests]).encode()).hexdigest() if all(digests) else ""


def digest_checkpoint(found: BestCheckpoint) -> str:
  """Returns a hexadecimal digest of the parameters, and of the options that a prediction reads."""
  config = found.config
  digest = hashlib.sha256(
    # Not the whole config: how a network learnt shows in its parameters alone.
    repr((config.data, config.inference, config.model, found.classes)).encode()
  )
  for path, values in jax.tree_util.tree_leaves_with_path(found.variables):
    # Its place as well: equal arrays in other places are another network.
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.ascontiguousarray(values).data)
  return digest.hexdigest()
