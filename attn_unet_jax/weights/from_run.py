"""Starts a run from the parameters and batch statistics of another run, or of several.

`config.init.workdir` names the other run; its best checkpoint is used, or the one of `RUN@STEP`. Of
several, with commas between them, the mean of each array is taken, which serves for checkpoints
that lie on one path of training (Izmailov et al. 2018, arXiv:1803.05407). Apart from their classes
both networks must be equal. Along an axis that counts classes, each class takes the values of the
other run's class of that name. The background takes those of the background, and a class that the
other run lacks keeps its random initial values. Building the network with one more class shows
which axes count classes. The step number and the optimiser's state start from zero.
"""

import dataclasses
from collections.abc import Mapping, Sequence
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
  """A run that has been trained, at one of its checkpoints.

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

  def make_record(self) -> dict[str, Any]:
    """Returns what `run.json` records of the checkpoint."""
    return {"workdir": name_run(self.workdir.resolve()), "checkpoint_step": self.step}

  def __str__(self) -> str:
    """Returns a few words for the screen."""
    return f"step {self.step} of {name_run(self.workdir)}"


@dataclasses.dataclass(frozen=True)
class StartingRun:
  """What a new run can start from, since the networks fit.

  Attributes:
    others: the run that has been trained, or several of the same classes, for their mean.
    classes: the classes of the new run, background first.
  """

  others: tuple[OtherRun, ...]
  classes: tuple[str, ...]

  @property
  def other_classes(self) -> tuple[str, ...]:
    """Returns the classes of the other runs, background first."""
    return (_BACKGROUND, *self.others[0].classes)

  def make_record(self) -> dict[str, Any]:
    """Returns what `run.json` records of the other runs."""
    records = [other.make_record() for other in self.others]
    return {
      **(records[0] if len(records) == 1 else {"mean_of": records}),
      "classes_taken": [name for name in self.classes if name in self.other_classes],
      "classes_fresh": [name for name in self.classes if name not in self.other_classes],
    }

  def __str__(self) -> str:
    """Returns one line for the screen."""
    about = self.make_record()
    fresh = f", fresh {', '.join(about['classes_fresh'])}" if about["classes_fresh"] else ""
    taken = ", ".join(about["classes_taken"])
    mean = "the mean of " if len(self.others) > 1 else ""
    return f"{mean}{', '.join(map(str, self.others))}: {taken}{fresh}"

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
    other = average_arrays([other.variables for other in self.others])
    ours, theirs = (flatten_dict(v, sep="/") for v in (fresh.variables, other))
    blocks = class_blocks(recipe, model, len(self.classes))
    taken = {
      name: copy_common_classes(value, theirs[name], blocks[name], self.classes, self.other_classes)
      for name, value in ours.items()
    }
    return make_initial_state(recipe, jax.device_put(unflatten_dict(taken, sep="/")))


def average_arrays(trees: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
  """Returns the mean of each array over trees of the same form; of one tree, that tree."""
  if len(trees) == 1:
    return trees[0]

  # In float64, so that the mean of equal arrays is that array to the bit.
  def average(*arrays: Any) -> np.ndarray:
    """Returns the mean of arrays, in their type."""
    return np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)

  averaged: Mapping[str, Any] = jax.tree.map(average, *trees)
  return averaged


def check_starting_run(
  recipe: TrainingRecipe, model: NetworkOptions, module: nn.Module, others: Sequence[OtherRun]
) -> StartingRun:
  """Checks that a run can start from another, or from the mean of several.

  Args:
    recipe: the options of the new training.
    model: the options of its network.
    module: its network.
    others: the runs that `config.init.workdir` names.

  Raises:
    UserError: the networks differ in more than their classes; names the first such parameter. Or
      runs whose mean is asked for have different classes.
  """
  found = StartingRun(tuple(others), (_BACKGROUND, *class_names(recipe.data.labels)))
  first = others[0]
  for other in others:
    if other.classes != first.classes:
      raise UserError(
        f"--config.init.workdir={name_run(other.workdir)}: has the classes "
        f"{', '.join(other.classes)}, and {name_run(first.workdir)} has "
        f"{', '.join(first.classes)}; a mean is taken of runs of the same classes in the same order"
      )
    _check_network(recipe, model, module, other, found)
  return found


def _check_network(
  recipe: TrainingRecipe,
  model: NetworkOptions,
  module: nn.Module,
  other: OtherRun,
  found: StartingRun,
) -> None:
  """Refuses a run whose network differs in more than its classes."""
  workdir = other.workdir
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
  # A copy, as arrays of JAX cannot be written to.
  result = np.array(fresh)
  result[np.ix_(*target)] = np.asarray(old)[np.ix_(*source)]
  return result


def _resize_class_axes(shape: Shape, blocks: Mapping[int, int], count: int) -> Shape:
  """Returns the shape that the array has with `count` classes."""
  return tuple(blocks[axis] * count if axis in blocks else n for axis, n in enumerate(shape))
