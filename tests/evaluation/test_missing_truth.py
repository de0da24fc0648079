"""Which classes have no truth, and what is said of them."""

import math

from attn_unet_jax.evaluation.missing_truth import find_missing_truth

LABELS = "pancreas=1,liver=none,spleen=2"


def test_a_class_is_without_a_truth_if_the_data_or_every_case_lacks_it():
  found = find_missing_truth(LABELS, {"pancreas": [0.0, 80.0], "spleen": [0.0, 0.0]})
  assert (found.unlabelled, found.absent) == (("liver",), ("spleen",))
  assert found.classes == ("liver", "spleen")
  first, second = found.describe()
  assert first.startswith("Without a truth: liver.")
  assert second.startswith("In the truth of no case: spleen.")


def test_nothing_is_said_of_what_is_not_known():
  assert find_missing_truth("pancreas=1", {"pancreas": [math.nan, 0.0]}).describe() == []
  assert find_missing_truth("pancreas=1", {}).describe() == []
