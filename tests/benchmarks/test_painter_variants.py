"""The variants of the painter: each can be trained, and differs from the others."""

import pytest

from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import flatten
from benchmarks import runs
from benchmarks.painter_variants import VARIANTS


def ask(name):
  experiment, *differing = VARIANTS[name]
  return runs.asked(f"--config=experiments/{experiment}", *differing)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_is_a_config(name):
  check_rules(ask(name))


def test_no_two_variants_are_the_same():
  assert len({repr(flatten(ask(name))) for name in VARIANTS}) == len(VARIANTS)
