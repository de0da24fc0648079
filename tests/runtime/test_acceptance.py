from dataclasses import fields

import pytest

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.runtime.acceptance import (
  ACCEPT_HELP,
  NOTHING,
  REASONS,
  parse_acceptance,
  refuse_unless_accepted,
)
from attn_unet_jax.runtime.errors import UserError


def test_names_are_read_in_any_order_with_spaces():
  assert parse_acceptance("rescale, hounsfield,") == {"hounsfield", "rescale"}
  assert parse_acceptance("") == NOTHING


def test_an_unknown_name_is_refused_with_the_known_ones():
  with pytest.raises(UserError, match="--accept=hounsfield,all: 'all' is none of hounsfield, "):
    parse_acceptance("hounsfield,all")


def test_a_doubt_is_refused_with_its_flag_unless_it_is_accepted():
  with pytest.raises(UserError, match=r"a\.nii: odd; .* --accept=geometry$"):
    refuse_unless_accepted("geometry", "a.nii: odd", parse_acceptance("hounsfield,rescale"))
  line = refuse_unless_accepted("geometry", "a.nii: odd", frozenset({"geometry"}))
  assert line == "accepted (geometry): a.nii: odd"


def test_the_help_of_the_config_names_every_reason():
  (doc,) = [field.metadata["doc"] for field in fields(DataOptions) if field.name == "accept"]
  assert doc.endswith(f": {','.join(REASONS)}.")


def test_the_help_explains_every_reason():
  assert all(f"{name}: {meaning}" in ACCEPT_HELP for name, meaning in REASONS.items())
