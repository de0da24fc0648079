"""The variants of the painter: each can be trained, and differs from the others."""

import json

import pytest

from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import flatten
from benchmarks import runs
from benchmarks.painter_variants import VARIANTS, read_rows


def ask(name):
  experiment, *differing = VARIANTS[name]
  return runs.build_asked_config(f"--config=experiments/{experiment}", *differing)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_is_a_config(name):
  check_rules(ask(name))


def test_no_two_variants_are_the_same():
  assert len({repr(flatten(ask(name))) for name in VARIANTS}) == len(VARIANTS)


def test_rows_of_the_same_budget_are_taken_over(tmp_path):
  rows, path = [{"name": "no texture", "seed": 0, "dsc": 0.5}], tmp_path / "result.json"
  budget = {"epochs": 8, "flags": ["--config.model.dtype=bfloat16"]}
  assert read_rows(path, budget) == []
  path.write_text(json.dumps({**budget, "runs": rows}))
  assert read_rows(path, budget) == rows
  assert read_rows(path, {**budget, "epochs": 9}) == []
  assert read_rows(path, {**budget, "flags": []}) == []
