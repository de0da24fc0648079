"""Starts a run from the parameters and batch statistics of another run.

`config.init.workdir` names the other run; its best checkpoint is used. Apart from their classes
both networks must be equal. Along an axis that counts classes, each class takes the values of the
other run's class of that name. The background takes those of the background, and a class that the
other run lacks keeps its random initial values. Building the network with one more class shows
which axes count classes. The step number and the optimiser's state start from zero.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from attn_unet_jax.labels import class_names
from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.options import NetworkOptions
from attn_unet_jax.runs.builtin import name_run
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
  """A run that has been trained, at its best checkpoint.

  Attributes:
    workdir: its folder.
    classes: its classes, without the background.
    variables: its parameters and batch statistics.
    step: the step of the checkpoint.
  """

  workdir: Path
  classes: tuple[str, ...]
  variables: Mapping[str, Any]
  step: int


@dataclasses.dataclass(frozen=True)
class StartingRun:
  """A run that a new run can start from, since the two networks fit.

  Attributes:
    other: the run that has been trained.
    classes: the classes of the new run, background first.
  """

  other: OtherRun
  classes: tuple[str, ...]

  @property
  def other_classes(self) -> tuple[str, ...]:
    """Returns the classes of the other run, background first."""
    return (_BACKGROUND, *self.other.classes)

  def make_record(self) -> dict[str, Any]:
    """Returns what `run.json` records of the other run."""
    return {
      "workdir": name_run(self.other.workdir.resolve()),
      "checkpoint_step": self.other.step,
      "classes_taken": [name for name in self.classes if name in self.other_classes],
      "classes_fresh": [name for name in self.classes if name not in self.other_classes],
    }

  def __str__(self) -> str:
    """Returns one line for the screen."""
    about = self.make_record()
    fresh = f", fresh {', '.join(about['classes_fresh'])}" if about["classes_fresh"] else ""
    taken = ", ".join(about["classes_taken"])
    return f"step {self.other.step} of {name_run(self.other.workdir)}: {taken}{fresh}"

  def make_state(
    self, recipe: TrainingRecipe, model: NetworkOptions, module: nn.Module
  ) -> TrainState:
    """Makes the state before the first step, with the values of the classes that both runs have.

    Args:
      recipe: the options of the new training.
      model: the options of its network.
      module: its network.
    """
    # Classes that the other run lacks keep these values.
    fresh = create_state(recipe, module)
    ours, theirs = (flatten_dict(v, sep="/") for v in (fresh.variables, self.other.variables))
    blocks = class_blocks(recipe, model, len(self.classes))
    taken = {
      name: copy_common_classes(value, theirs[name], blocks[name], self.classes, self.other_classes)
      for name, value in ours.items()
    }
    return make_initial_state(recipe, jax.device_put(unflatten_dict(taken, sep="/")))


def check_starting_run(
  recipe: TrainingRecipe, model: NetworkOptions, module: nn.Module, other: OtherRun
) -> StartingRun:
  """Checks that a run can start from another.

  Args:
    recipe: the options of the new training.
    model: the options of its network.
    module: its network.
    other: the run that `config.init.workdir` names.

  Raises:
    UserError: the networks differ in more than their classes; names the first such parameter.
  """
  workdir = other.workdir
  found = StartingRun(other, (_BACKGROUND, *class_names(recipe.data.labels)))
  ours, theirs = (
    {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
    for variables in (abstract_state(recipe, module).variables, other.variables)
  )
  blocks = class_blocks(recipe, model, len(found.classes))
  # The other run may also have parameters that the new network lacks.
  for name in [*ours, *(theirs.keys() - ours.keys())]:
    wanted = (
      _resize_class_axes(ours[name], blocks[name], len(found.other_classes))
      if name in ours
      else None
    )
    if wanted != theirs.get(name):
      raise UserError(
        f"--config.init.workdir={name_run(workdir)}: its network differs from this one; the first "
        f"difference is {name}, {theirs.get(name, 'missing')} there, {wanted or 'missing'} here. "
        f"Use the config.model of {workdir / 'config.json'}"
      )
  return found


def class_blocks(
  recipe: TrainingRecipe, model: NetworkOptions, count: int
) -> dict[str, dict[int, int]]:
  """Finds the axes that count classes, for each parameter and batch statistic.

  Args:
    recipe: the options of the training.
    model: the options of the network.
    count: the number of classes, background included.

  Returns:
    name -> axis -> the number of blocks of `count` channels along that axis: 1 in a head, 4 at the
    input of a convolution that fuses four heads.
  """
  # A network without this field, such as one with a binary output, has no axis that grows.
  grows = "num_classes" in build_network(model, count).__dataclass_fields__
  few, more = (
    flatten_dict(abstract_state(recipe, build_network(model, k)).variables, sep="/")
    for k in (count, count + grows)
  )
  # With one more class, an axis of `b` blocks is `b` longer.
  growth = {name: np.subtract(more[name].shape, few[name].shape) for name in few}
  return {
    name: {axis: int(n) for axis, n in enumerate(added) if n} for name, added in growth.items()
  }


def copy_common_classes(
  fresh: Any,
  old: Any,
  blocks: Mapping[int, int],
  classes: tuple[str, ...],
  other_classes: tuple[str, ...],
) -> np.ndarray:
  """Copies the values of the classes that both runs have from `old` into a copy of `fresh`.

  Args:
    fresh: an array of the new run.
    old: the array of this name of the other run.
    blocks: the axes of both that count classes, see `class_blocks`.
    classes: the classes of the new run, background first.
    other_classes: the classes of the other run, background first.
  """
  common = [
    (k, other_classes.index(name)) for k, name in enumerate(classes) if name in other_classes
  ]
  # Per axis, the pairs of an index of `fresh` and the index of `old` that it takes its values from.
  # In each block of channels the classes have their own order.
  index_pairs = [
    [
      (block * len(classes) + k, block * len(other_classes) + j)
      for block in range(blocks[axis])
      for k, j in common
    ]
    if axis in blocks
    else [(i, i) for i in range(size)]
    for axis, size in enumerate(fresh.shape)
  ]
  target, source = ([[pair[side] for pair in pairs] for pairs in index_pairs] for side in (0, 1))
  result = np.array(fresh)
  result[np.ix_(*target)] = np.asarray(old)[np.ix_(*source)]
  return result


def _resize_class_axes(shape: Shape, blocks: Mapping[int, int], count: int) -> Shape:
  """Returns the shape that the array has with `count` classes."""
  return tuple(blocks[axis] * count if axis in blocks else n for axis, n in enumerate(shape))
