"""Starting from another run: its parameters and batch statistics, classes matched by name.

`config.init.workdir` names that run, whose best checkpoint is taken. The networks must be the same
but for their classes: along an axis that counts classes, a class takes the values of the class of
its name (the background is the background), and keeps its fresh start where there was none. Which
axes count classes is read off the network, by building it with one class more. Steps and optimiser
begin anew.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from attn_unet_jax.labels import class_names
from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.options import NetworkOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import (
  TrainState,
  abstract_state,
  create_state,
  make_initial_state,
)

Shape = tuple[int, ...]
_BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class OtherRun:
  """What another run learnt, at its best checkpoint.

  Attributes:
    workdir: its folder.
    classes: its classes, without the background.
    variables: parameters and batch statistics.
    step: the step of the checkpoint.
  """

  workdir: Path
  classes: tuple[str, ...]
  variables: Mapping[str, Any]
  step: int


@dataclasses.dataclass(frozen=True)
class StartingRun:
  """The run that another starts from, known to fit it.

  Attributes:
    other: that run.
    classes: the new run's, background first.
  """

  other: OtherRun
  classes: tuple[str, ...]

  @property
  def other_classes(self) -> tuple[str, ...]:
    """The other run's classes, background first."""
    return (_BACKGROUND, *self.other.classes)

  def make_record(self) -> dict[str, Any]:
    """What `run.json` says of it."""
    return {
      "workdir": str(self.other.workdir.resolve()),
      "checkpoint_step": self.other.step,
      "classes_taken": [name for name in self.classes if name in self.other_classes],
      "classes_fresh": [name for name in self.classes if name not in self.other_classes],
    }

  def __str__(self) -> str:
    """One line for the screen."""
    about = self.make_record()
    fresh = f", fresh {', '.join(about['classes_fresh'])}" if about["classes_fresh"] else ""
    taken = ", ".join(about["classes_taken"])
    return f"step {self.other.step} of {self.other.workdir}: {taken}{fresh}"

  def make_state(
    self, recipe: TrainingRecipe, model: NetworkOptions, module: nn.Module
  ) -> TrainState:
    """The state before the first step of the new run: `create`'s, with what is taken over."""
    fresh = create_state(recipe, module)
    ours, theirs = (flatten_dict(v, sep="/") for v in (fresh.variables, self.other.variables))
    blocks = class_blocks(recipe, model, len(self.classes))
    taken = {
      name: jnp.asarray(
        copy_common_classes(value, theirs[name], blocks[name], self.classes, self.other_classes)
      )
      for name, value in ours.items()
    }
    return make_initial_state(recipe, unflatten_dict(taken, sep="/"))


def check_starting_run(
  recipe: TrainingRecipe, model: NetworkOptions, module: nn.Module, other: OtherRun
) -> StartingRun:
  """Checks that a run can start from another.

  Args:
    recipe: what the new training reads.
    model: the options of its network.
    module: its network.
    other: the run that `config.init.workdir` names.

  Raises:
    UserError: the other network is another one: names the first parameter that differs.
  """
  workdir = other.workdir
  found = StartingRun(other, (_BACKGROUND, *class_names(recipe.data.labels)))
  ours, theirs = (
    {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
    for variables in (abstract_state(recipe, module).variables, other.variables)
  )
  blocks = class_blocks(recipe, model, len(found.classes))
  for name in [*ours, *(theirs.keys() - ours.keys())]:
    wanted = (
      _resize_class_axes(ours[name], blocks[name], len(found.other_classes))
      if name in ours
      else None
    )
    if wanted != theirs.get(name):
      raise UserError(
        f"--config.init.workdir={workdir}: its network is another one; the first difference is "
        f"{name}, {theirs.get(name, 'missing')} there, {wanted or 'missing'} here: give the "
        f"config.model of {workdir / 'config.json'}"
      )
  return found


def class_blocks(
  recipe: TrainingRecipe, model: NetworkOptions, count: int
) -> dict[str, dict[int, int]]:
  """Per parameter or statistic, the axes that count classes.

  Args:
    recipe: what the training reads.
    model: the options of the network.
    count: its classes, background included.

  Returns:
    name -> axis -> how many blocks of `count` channels that axis is made of: 1 in a head, 4 at the
    input of a convolution that fuses four heads.
  """
  grows = "num_classes" in build_network(model, count).__dataclass_fields__
  few, more = (
    flatten_dict(abstract_state(recipe, build_network(model, k)).variables, sep="/")
    for k in (count, count + grows)
  )
  steps = {name: np.subtract(more[name].shape, few[name].shape) for name in few}
  return {name: {axis: int(n) for axis, n in enumerate(step) if n} for name, step in steps.items()}


def copy_common_classes(
  fresh: Any,
  old: Any,
  blocks: Mapping[int, int],
  classes: tuple[str, ...],
  there: tuple[str, ...],
) -> np.ndarray:
  """`fresh` with the values that the classes of both runs have in `old`.

  Args:
    fresh: an array of the new run.
    old: the same of the other run.
    blocks: its axes that count classes, see `class_blocks`.
    classes: the new run's classes, background first.
    there: the other run's.
  """
  common = [(k, there.index(name)) for k, name in enumerate(classes) if name in there]
  places = [
    [(b * len(classes) + k, b * len(there) + j) for b in range(blocks[axis]) for k, j in common]
    if axis in blocks
    else [(i, i) for i in range(size)]
    for axis, size in enumerate(fresh.shape)
  ]
  to, source = ([[pair[side] for pair in pairs] for pairs in places] for side in (0, 1))
  result = np.array(fresh)
  result[np.ix_(*to)] = np.asarray(old)[np.ix_(*source)]
  return result


def _resize_class_axes(shape: Shape, blocks: Mapping[int, int], count: int) -> Shape:
  """The shape with another number of classes."""
  return tuple(blocks[axis] * count if axis in blocks else n for axis, n in enumerate(shape))
