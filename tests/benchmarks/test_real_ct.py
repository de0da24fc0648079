"""What the benchmark on real CT makes of scores, labels and folds."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from attn_unet_jax.evaluation.scoring import write_scores
from benchmarks import real_ct_parts as real_ct


@pytest.fixture
def setup(tmp_path, monkeypatch):
  """A network of these classes."""
  labels = "pancreas=pancreas+tumour,liver=none,kidney=none"
  config = SimpleNamespace(data=SimpleNamespace(labels=labels))
  monkeypatch.setattr(real_ct, "load_config", lambda _: config)
  return real_ct.Setup("runs/a", "data", tmp_path, tmp_path / "real_ct.json")


def test_scores_are_told_by_case_and_on_average(tmp_path):
  def row(dsc):
    return {"pancreas": {"dsc": dsc, "volume_ml": 1.0, "reference_volume_ml": 1.0}}

  rows = {"a": row(0.2), "b": row(0.9), "c": row(0.4), "d": row(float("nan"))}
  write_scores(rows, tmp_path, {"part": "test", "checkpoint_step": 6})
  found = real_ct.summarise(tmp_path)
  assert found["checkpoint_step"] == 6
  said = found["classes"]["pancreas"]
  assert (said["cases"], said["median"]) == (3, 0.4)
  assert said["mean"] == pytest.approx(0.5)
  assert said["ci95_low"] < 0.5 < said["ci95_high"]
  assert [said[name] for name in ("worst", "middle", "best")] == ["a", "c", "b"]
  assert said["dsc"] == {"a": 0.2, "b": 0.9, "c": 0.4}
  assert "ci95_low" not in real_ct.describe_scores({"a": 0.5})


def test_classes_are_found_in_the_labels_of_each_set(setup):
  slabs = real_ct.map_labels(setup, {"pancreas": ("pancreas", "tumour")})
  assert slabs == "pancreas=pancreas+tumour,liver=none,kidney=none"
  assert (
    real_ct.map_labels(setup, {}) == "pancreas=pancreas,liver=liver,kidney=kidney_left+kidney_right"
  )
  some = real_ct.map_labels(setup, {}, {"pancreas", "kidney_left", "kidney_right"})
  assert some == "pancreas=pancreas,liver=none,kidney=kidney_left+kidney_right"


def test_fine_tunings_learn_from_no_case_that_the_network_has_seen(setup):
  own = real_ct.read_folds(real_ct.FOLD_LIST)["folds"][0]
  tests = set()
  for count in real_ct.FEW:
    (fold,) = json.loads(real_ct.write_folds(setup, count).read_text())["folds"]
    assert len(fold["training"]) == count
    assert {*fold["training"], *fold["test"]} <= {*own["test"]}
    assert not {*fold["training"]} & {*fold["test"]}
    tests.add(tuple(fold["test"]))
  assert len(tests) == 1  # the same, so that they can be compared


def test_a_part_is_stored_beside_what_was_measured_before(setup):
  for part in ("slabs", "scan"):
    real_ct.store_part(setup, part, {"of": part})
  another = dataclasses.replace(setup, network="builtin:x")
  real_ct.store_part(another, "slabs", {"of": "another"})
  assert json.loads(setup.output.read_text()) == {
    "a": {"slabs": {"of": "slabs"}, "scan": {"of": "scan"}},
    "builtin:x": {"slabs": {"of": "another"}},
  }
