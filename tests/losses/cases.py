"""Logits and labels that the tests of losses share, and the losses of a module, compiled."""

import inspect
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np


def compile_losses(module: ModuleType) -> SimpleNamespace:
  """The losses of a module as a step has them: one program, where Python runs twenty small ones."""

  def compiled(loss):
    parameters = inspect.signature(loss).parameters.values()
    return jax.jit(loss, static_argnames=[p.name for p in parameters if p.kind == p.KEYWORD_ONLY])

  own = inspect.getmembers(
    module, lambda x: inspect.isfunction(x) and x.__module__ == module.__name__
  )
  return SimpleNamespace(**{name: compiled(loss) for name, loss in own if name[0] != "_"})


def logits_of(*probabilities):
  """Logits [1, V, 1, 1, K] whose softmax is the given probability vectors, one a voxel."""
  return jnp.asarray(np.log(np.array(probabilities, np.float32))[None, :, None, None, :])


def labels_of(*values):
  return jnp.asarray(np.array(values, np.uint8)[None, :, None, None])


TWO = (logits_of((0.8, 0.2), (0.4, 0.6), (0.5, 0.5)), labels_of(0, 1, 1))
