"""From a draft to a run's config."""

from ml_collections import ConfigDict

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.config.build import build
from attn_unet_jax.config.draft import check_complete, flatten_draft
from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.switches import check_switches
from attn_unet_jax.runtime.errors import UserError


def resolve_draft(draft: ConfigDict, *, data: bool = True) -> RunConfig:
  """Makes a run's config of a draft.

  Args:
    draft: made by `default()` and changed.
    data: whether a data set must be named.

  Raises:
    UserError: naming the key, its value and what is allowed, or who reads it.
  """
  check_complete(draft)
  config = build(flatten_draft(draft))
  check_rules(config)
  check_switches(config)
  # `check` and `convert` work without a data set.
  if data:
    check_data(config.data)
  return config


def check_data(data: DataOptions) -> None:
  """Checks that one data set is named.

  Raises:
    UserError: none is, or two are.
  """
  if bool(data.dataset) == bool(data.folder):
    raise UserError(
      f"config.data.dataset={data.dataset!r} and config.data.folder={data.folder!r}: "
      "give one of the two"
    )
