"""The weighted sum of the terms that a run asks for."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.losses.options import LOSSES, LossTerm
from attn_unet_jax.runtime.import_path import load_object


def load_loss(name: str) -> Callable[..., Array]:
  """Returns the function of a loss: a name of `LOSSES`, or an import path.

  Raises:
    UserError: it cannot be imported.
  """
  path = LOSSES[name].function if name in LOSSES else name
  loss: Callable[..., Array] = load_object(path, "config.loss")
  return loss


def sum_terms(
  terms: Sequence[LossTerm],
  logits: Array,
  labels: Array,
  sides: Mapping[int, Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
  """Sums the weighted loss terms. Returns the sum (a scalar), and each term without its weight.

  Args:
    terms: names, weights and options.
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    sides: the maps that `side_bce` reads, see there.

  Raises:
    ValueError: no term, or shapes that do not fit.
    UserError: a loss from outside the package cannot be imported.
  """
  if not terms:
    raise ValueError("no loss term")
  values = {}
  for term in terms:
    loss = functools.partial(load_loss(term.name), **term.arguments)
    values[term.name] = loss(sides or {} if term.entry.reads_sides else logits, labels)
  # The values stay unweighted: metrics of runs with other weights can then be compared.
  weighted = [term.weight * values[term.name] for term in terms]
  return jnp.sum(jnp.stack(weighted)), values
