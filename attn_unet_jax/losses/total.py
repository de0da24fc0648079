"""The weighted sum of the terms that a run asks for."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.losses.options import LOSSES, LossTerm
from attn_unet_jax.losses.partial import average_over_supervised, merge_unsupervised
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
  named: Sequence[Sequence[bool]] = (),
) -> tuple[Array, dict[str, Array]]:
  """Sums the weighted loss terms. Returns the sum (a scalar), and each term without its weight.

  Args:
    terms: names, weights and options.
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    sides: the maps that `side_bce` reads, see there.
    named: for each data set of the run, whether it labels each foreground class; see `partial`.

  Raises:
    ValueError: no term, or shapes that do not fit.
    UserError: a loss from outside the package cannot be imported.
  """
  if not terms:
    raise ValueError("no loss term")
  values = {}
  # Where every set labels every class, nothing is merged, and losses are to the bit what they were.
  merged = None if all(map(all, named)) else merge_unsupervised(logits, labels, named)
  for term in terms:
    loss = functools.partial(load_loss(term.name), **term.arguments)
    if merged is None:
      values[term.name] = loss(sides or {} if term.entry.reads_sides else logits, labels)
    elif term.entry.partial == "classes":
      values[term.name] = average_over_supervised(loss, merged)
    else:
      values[term.name] = loss(merged.logits, merged.labels)
  # The values stay unweighted: metrics of runs with other weights can then be compared.
  weighted = [term.weight * values[term.name] for term in terms]
  return jnp.sum(jnp.stack(weighted)), values
