"""Says how long a training takes: its compilation, an epoch, and all of it."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from attn_unet_jax.patches.batch import StepInput
from attn_unet_jax.runtime.console import format_duration, print_line
from attn_unet_jax.runtime.signals import acknowledge_signals
from attn_unet_jax.training.compile import Step
from attn_unet_jax.training.cost import forward_cost
from attn_unet_jax.training.mesh import select_devices
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState, abstract_state

# XLA takes about so many times as long as JAX does to trace and lower the step.
_COMPILE_TO_LOWER = 4.0
_FAST_S = 5.0  # compilations that take less are not announced
# Fewer voxels than these are trained within a day on any machine: nothing is measured for them.
_MANY_VOXELS = 1e10
_LONG_S = 24 * 3600.0
_SIDE = 1024  # of the matrices whose product measures the device
# Steps that are timed, and the time after which fewer are enough.
_TIMED_STEPS, _ENOUGH_S = 5, 20.0
_WORTH_SAYING_S = 10.0  # of a training that ends sooner nobody needs an estimate


def warn_of_long_training(recipe: TrainingRecipe, module: nn.Module, steps: int) -> None:
  """Warns, before anything is compiled, of a training that would take more than a day here.

  The time is that of the step's operations at the rate at which the device multiplies matrices,
  times the devices that the recipe selects.

  Args:
    recipe: the options of the training.
    module: the network.
    steps: number of steps that are left.
  """
  batch, patch = recipe.train.batch_size, recipe.data.patch
  if steps * batch * math.prod(patch) < _MANY_VOXELS:
    return
  # The operations are those of the direct convolution, whichever form is used.
  direct = module.clone(conv="native") if hasattr(module, "conv") else module
  operations, _ = forward_cost(direct, abstract_state(recipe, direct), (batch, *patch, 1))
  # A backward pass takes about twice the operations of a forward pass.
  seconds = steps * 3 * operations / (measure_rate() * len(select_devices(recipe)))
  if seconds > _LONG_S:
    days, hours = divmod(round(seconds / 3600), 24)
    print_line(
      f"warning: these {steps} steps of {3 * operations:.1e} operations take about {days} days "
      f"{hours} hours on this machine; a recipe for a laptop is --config=pancreas:small"
    )


def measure_rate() -> float:
  """Measures the operations per second of a product of matrices on the first device."""
  multiply = jax.jit(lambda matrix: matrix @ matrix)
  matrix = jnp.ones((_SIDE, _SIDE))
  multiply(matrix).block_until_ready()  # compiles
  best = math.inf
  for _ in range(3):  # the best, since other programs may take a core meanwhile
    began = time.perf_counter()
    multiply(matrix).block_until_ready()
    best = min(best, time.perf_counter() - began)
  return 2 * _SIDE**3 / best


def announce_and_compile(step: Step, state: TrainState, feed: StepInput) -> Step:
  """Compiles a step, and says before how long that takes.

  A signal that arrives meanwhile is acknowledged at once. XLA cannot be broken off.

  Args:
    step: from `compile_step`, not called yet.
    state: the first state.
    feed: the first input.

  Returns:
    the compiled step; `step` itself where it cannot be compiled before it is called, as with pmap,
    or where the state has other types after it, as with statistics that a network widens.
  """
  what = "compiling the training step"
  lower: Any = getattr(step, "lower", None)
  if lower is None:
    print_line(what)
    return step
  began = time.monotonic()
  with acknowledge_signals(what):
    lowered = lower(state, feed)
    estimate = _COMPILE_TO_LOWER * (time.monotonic() - began)
    if estimate >= _FAST_S:
      print_line(f"{what}, about {estimate:.0f} s; less if it was compiled here before")
    compiled: Step = lowered.compile()
  # A compiled program takes its own types alone; `step` is compiled again where they change.
  return compiled if _list_types(lowered.out_info[0]) == _list_types(state) else step


def _list_types(state: TrainState) -> list[jnp.dtype[Any]]:
  return [leaf.dtype for leaf in jax.tree.leaves(state)]


class PaceReport:
  """A report, after the first steps, of how long an epoch and the rest of the training take.

  Args:
    steps: number of steps that are left.
    per_epoch: number of steps of an epoch.
  """

  def __init__(self, steps: int, per_epoch: int):
    self._left, self._per_epoch = steps, per_epoch
    self._began: float | None = None
    self._done = 0

  def note_step(self, state: TrainState) -> None:
    """Notes the end of a step; waits for its result while the first steps are timed."""
    if self._done >= _TIMED_STEPS:
      return
    # Steps run asynchronously: a step ends when its state is ready.
    jax.block_until_ready(state)
    now = time.monotonic()
    self._left -= 1
    if self._began is None:  # the first step may also wait for its patches, or compile
      self._began = now
      return
    self._done += 1
    if self._done < _TIMED_STEPS and now - self._began < _ENOUGH_S:
      return
    seconds, self._done = (now - self._began) / self._done, _TIMED_STEPS
    if seconds * self._left >= _WORTH_SAYING_S:
      epoch, rest = (format_duration(seconds * steps) for steps in (self._per_epoch, self._left))
      print_line(
        f"a step takes {seconds:.3g} s: an epoch about {epoch}, the {self._left} steps that are "
        f"left about {rest}, and the validations on top"
      )
