import math

import numpy as np
import pytest

from attn_unet_jax.evaluation.gate_places import (
  average_cases,
  measure_gates,
  read_gate_means,
  write_gate_means,
)
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.places import PLACES


def test_a_mean_is_of_the_voxels_that_were_looked_at_and_are_known():
  values = np.zeros((6, 1, 1, 2), np.float32)
  values[:5, 0, 0, 0] = [0.5, 1.0, 0.25, 0.75, 0.5]
  values[:5, 0, 0, 1] = 0.5
  places = np.array([0, 0, 1, 2, 2, 2], np.uint8).reshape(6, 1, 1)
  known = np.array([1, 1, 1, 1, 0, 1], bool).reshape(6, 1, 1)
  found = measure_gates(values, ["a", "b"], places, known)
  assert found == {
    "a": {"organ": 0.75, "shell": 0.25, "elsewhere": 0.75},
    "b": {"organ": 0.5, "shell": 0.5, "elsewhere": 0.5},
  }
  empty = measure_gates(values, ["a", "b"], np.full_like(places, 2), known)
  assert math.isnan(empty["a"]["organ"])


def test_a_table_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path):
  path = tmp_path / "evaluation" / "attention.csv"
  assert read_gate_means(path) == {}
  cases = {
    "a, b": {"level2/0": dict(zip(PLACES, (0.5, 0.25, 0.125), strict=True))},
    "c": {"level2/0": dict(zip(PLACES, (1.0, math.nan, 0.375), strict=True))},
  }
  write_gate_means(path, cases)
  assert str(read_gate_means(path)) == str(cases)
  means = average_cases(read_gate_means(path))["level2/0"]
  assert means["organ"] == (0.75, pytest.approx(0.5**0.5 / 2))
  assert means["shell"][0] == 0.25
  assert math.isnan(means["shell"][1])
  path.write_text(path.read_text().replace("0.25", "much"))
  with pytest.raises(UserError, match=r"attention\.csv: not a table of attention"):
    read_gate_means(path)
