"""The expected DSC against the true one."""

import math

import pytest

from attn_unet_jax.evaluation.quality_scores import (
  rank_estimates,
  read_estimates,
  write_estimates,
)
from attn_unet_jax.runtime.errors import UserError

DSC = {"a": 0.9, "b": 0.4, "c": 0.8, "d": math.nan}
ROWS = {case: {"pancreas": {"dsc": dsc}} for case, dsc in DSC.items()}


def _expect(*values):
  return {case: {"pancreas": value} for case, value in zip("abcd", values, strict=True)}


def test_ranks_are_those_of_the_cases_that_have_both():
  for values, rho in (((0.8, 0.5, 0.7, 0.1), 1), ((0.5, 0.8, 0.7, 0.9), -1)):
    (found,) = rank_estimates(_expect(*values), ROWS).values()
    assert (found.cases, found.spearman) == (3, pytest.approx(rho))
  found = rank_estimates(_expect(0.8, 0.5, 0.7, 0.1), ROWS)["pancreas"]
  assert found.mean_difference == pytest.approx(0.1)
  # Without an order there is no correlation, and a class without a DSC has none.
  assert rank_estimates(_expect(0.7, 0.7, 0.7, 0.1), ROWS)["pancreas"].spearman is None
  few = {"a": {"pancreas": 0.8, "liver": 0.9}, "b": {"pancreas": 0.1}}
  assert rank_estimates(few, ROWS)["pancreas"].spearman is None
  assert [*rank_estimates(few, ROWS)] == ["pancreas"]


def test_estimates_are_written_and_read_again(tmp_path, capsys):
  estimates = _expect(0.8, 0.5, 0.7, 0.1)
  write_estimates(tmp_path, estimates, ROWS, {})
  assert read_estimates(tmp_path) == {}
  write_estimates(tmp_path, estimates, ROWS, rank_estimates(estimates, ROWS))
  said = "pancreas: expected against true DSC: Spearman's rho 1.000, mean difference 0.100, 3 cases"
  assert said in capsys.readouterr().out
  assert read_estimates(tmp_path) == estimates
  (tmp_path / "quality.csv").write_text("case,class\na,pancreas\n")
  with pytest.raises(UserError, match=r"quality\.csv: not a table of estimates"):
    read_estimates(tmp_path)
