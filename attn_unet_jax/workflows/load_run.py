"""Opens a run of one network: its config, its classes and its best parameters."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.inference.agreement import MemberAgreement
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.quality import MaskQuality, QualityModel, estimate_quality
from attn_unet_jax.inference.segment import Locate, ScanProbabilities
from attn_unet_jax.inference.sliding import SegmentationSystem, SlidingWindow
from attn_unet_jax.labels import class_names
from attn_unet_jax.models.ops.onednn_conv import has_onednn
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runs.release import PARAMETERS, WAY_OUT, is_release, read_release
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
  images, `scales` the scales of further copies. `members` has the configs of the runs that an
  ensemble averages; of a single run it is empty. `networks` are those that `system` and `locate`
  use; `engine` is what computes them, with its version. `quality` estimates by class how good a
  mask is; empty where the probabilities do not tell. `agreement` is how far the members agree; None
  for a single run.
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
    """The configs of all runs that answer."""
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

  That of a release is its only one.

  Args:
    workdir: the run's folder.
    step: the step of another checkpoint, instead of the best.

  Raises:
    UserError: there is no run, or it has no intact checkpoint, or none of that step.
  """
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
    variables = load_variables(workdir / PARAMETERS, values, WAY_OUT)
    return BestCheckpoint(config, classes, module, variables, release.checkpoint_step)
  if not has_progress(workdir):
    raise UserError(f"{workdir}: no checkpoint yet; train it with attn_unet_jax.main first")
  # Restoring needs the shapes of the parameters only, not their values.
  folder, like = workdir / "checkpoints", abstract_state(config, module)
  state = restore_best(folder, like) if step is None else restore_step(folder, step, like)
  return BestCheckpoint(config, classes, module, state.variables, int(state.step))


def open_run(workdir: Path) -> LoadedRun:
  """Opens a run of one network with its best checkpoint, and the steps that it chose for it.

  Raises:
    UserError: there is no run, it has no checkpoint, or what it chose is damaged.
  """
  found = load_best(workdir)
  system = SlidingWindow(found.config, found.module, announce=True).use(found.variables)
  steps = read_steps(workdir, found.step, found.config.inference)
  digest = digest_checkpoint(found)
  return LoadedRun(
    found.config,
    found.classes,
    system,
    found.step,
    digest=digest,
    postprocessing=steps,
    networks=(LoadedNetwork(workdir, found, system),),
    quality=read_quality(workdir, found.classes, found.step),
  )


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
