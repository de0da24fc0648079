"""The steps after the network are those that the validation cases gain by, and no others."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.evaluation.choose_steps import (
  MIN_CASES,
  choose_steps,
  list_candidates,
  pick_steps,
)
from attn_unet_jax.evaluation.overlap import average_dsc
from attn_unet_jax.evaluation.scoring import mean_dsc, score_cases
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.volumes.orientation import from_canonical
from attn_unet_jax.volumes.volume import Grid, Volume
from tests.configs import with_keys

# 20 x 18 x 16 mm of 1 ml voxels, that is 10 mm each.
SHAPE = (20, 18, 16)
AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])
# A file may store its axes otherwise.
FLIPPED = np.array([[-10.0, 0, 0, 0], [0, -10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 1]])


class Network:
  """A network that knows the probability of each case; the case's number stands in its HU."""

  def __init__(self, probabilities):
    self.probabilities, self.calls = probabilities, 0

  def predict(self, volume):
    self.calls += 1
    p = self.probabilities[int(volume.array.max())]
    return np.stack([1 - p, p], -1).astype(np.float32)


def make_fold(labels):
  """A fold of canonical label maps, whose files have other axes."""

  def load(case_id):
    number = int(case_id)
    label = from_canonical(labels[number], Grid(SHAPE, FLIPPED))
    image = np.zeros(SHAPE, np.int16)
    image[0, 0, 0] = number
    return NativeCase(case_id, Volume(image, FLIPPED), label, case_id)

  ids = tuple(str(number) for number in range(len(labels)))
  return SimpleNamespace(
    dataset=SimpleNamespace(load=load),
    mapping=parse_mapping("pancreas=1", None),
    boxes=None,
    split=SimpleNamespace(validation=ids, test=("none",)),
  )


@pytest.fixture
def recipe(config):
  return with_keys(config, {"data.spacing_mm": 10.0})


def organs(count):
  labels = np.zeros((count, *SHAPE), np.uint8)
  for number, label in enumerate(labels):
    label[4:10, 4 : 9 + number % 3, 4:9] = 1
  return labels


def choose(labels, probabilities, recipe):
  network = Network(probabilities)
  fold = make_fold(labels)
  return choose_steps(fold, fold.split.validation, network, recipe), network


def with_debris(labels, size):
  p = np.where(labels == 1, 0.9, 0.1)
  p[:, 14 : 14 + size, 14, 12] = 0.8
  return p


def with_hollows(labels):
  p = np.where(labels == 1, 0.9, 0.1)
  p[:, 6:8, 6:8, 6:8] = 0.1
  return p


def test_of_classes_without_labels_nothing_is_chosen(recipe):
  """The steps are for the labelled class alone: of the other one nobody knows what helps."""
  labels = organs(3)
  recipe = with_keys(recipe, {"data.labels": "pancreas=1,kidney=none"})
  fold = make_fold(labels)
  fold.mapping = parse_mapping("pancreas=1,kidney=none", None)
  p = with_debris(labels, 5)

  class TwoClasses(Network):
    def predict(self, volume):
      found = super().predict(volume)
      return np.concatenate([found, np.zeros_like(found[..., :1])], -1)

  found = choose_steps(fold, fold.split.validation, TwoClasses(p), recipe)
  assert found.steps == Postprocessing(largest=True, values=(1,))


@pytest.mark.parametrize(
  ("spoil", "expected"),
  [
    (lambda labels: with_debris(labels, 5), Postprocessing(largest=True)),
    (lambda labels: with_debris(labels, 1), Postprocessing(largest=True)),
    (with_hollows, Postprocessing(fill_holes=True)),
    (lambda labels: np.where(labels == 1, 0.45, 0.1), Postprocessing(threshold=0.3)),
    (lambda labels: np.where(labels == 1, 0.9, 0.55), Postprocessing(threshold=0.6)),
  ],
)
def test_the_step_that_mends_the_fault_is_chosen(recipe, spoil, expected):
  labels = organs(4)
  found, network = choose(labels, spoil(labels), recipe)
  assert found.steps == expected
  assert found.after == pytest.approx(1)
  assert found.before < 0.999
  assert (found.cases, network.calls) == (4, 4)


def test_two_pieces_that_are_right_are_kept_and_debris_goes(recipe):
  labels = organs(4)
  labels[:, 14:17, 4:7, 4:7] = 1
  found, _ = choose(labels, with_debris(labels, 1), recipe)
  assert found.steps == Postprocessing(smallest_ml=2.0)


def test_faults_together_take_steps_together(recipe):
  labels = organs(4)
  p = np.minimum(with_debris(labels, 6), with_hollows(labels) + (labels == 0))
  found, _ = choose(labels, p, recipe)
  assert found.steps == Postprocessing(largest=True, fill_holes=True)


def test_a_right_answer_is_left_as_it_is(recipe):
  labels = organs(4)
  found, _ = choose(labels, np.where(labels == 1, 0.9, 0.1), recipe)
  assert found[:4] == (UNCHANGED, 1, 1, 4)


@pytest.mark.parametrize("count", range(1, MIN_CASES))
def test_nothing_is_chosen_by_a_few_cases(recipe, count):
  labels = organs(count)
  found, _ = choose(labels, with_debris(labels, 5), recipe)
  assert found.steps == UNCHANGED


@pytest.mark.parametrize("seed", range(3))
def test_the_validation_score_is_never_lower_and_is_that_of_evaluate(recipe, seed):
  """Noise, in which some steps gain by chance and most do not."""
  rng = np.random.default_rng(seed)
  labels = organs(3)
  p = np.clip(np.where(labels == 1, 0.55, 0.35) + rng.normal(0, 0.2, labels.shape), 0, 1)
  found, network = choose(labels, p, recipe)
  fold = make_fold(labels)
  ids = fold.split.validation
  assert found.before == mean_dsc(fold, ids, network, recipe).mean
  scored = score_cases(fold, ids, network, recipe, postprocessing=found.steps)
  assert found.after == average_dsc(list(scored.values())).mean
  assert found.after >= found.before
  assert found.steps != UNCHANGED


def scores(*values):
  return [{"a": {"dsc": value}} for value in values]


def test_a_gain_that_cases_do_not_share_is_none():
  better = Postprocessing(largest=True)
  plain = scores(0.5, 0.5, 0.5)
  assert pick_steps({UNCHANGED: plain, better: scores(0.51, 0.51, 0.51)}).steps == better
  assert pick_steps({UNCHANGED: plain, better: scores(0.501, 0.501, 0.501)}).steps == UNCHANGED
  # The mean gain is 0.01, its standard error over the cases 0.02.
  lucky = scores(0.55, 0.49, 0.49)
  assert pick_steps({UNCHANGED: plain, better: lucky}).steps == UNCHANGED
  assert pick_steps({UNCHANGED: plain, better: scores(0.4, 0.4, 0.4)}).steps == UNCHANGED


def test_the_best_of_many_by_chance_is_not_chosen():
  """50 candidates of noise: by its own gain one of them is chosen in all 200 of these draws."""
  rng, taken = np.random.default_rng(0), 0
  candidates = [UNCHANGED, *(Postprocessing(smallest_ml=ml) for ml in np.arange(0.1, 5, 0.1))]
  for _ in range(200):
    noise = rng.normal(0, 0.02, (len(candidates), 8)) * (np.arange(len(candidates)) > 0)[:, None]
    rows = {one: scores(*(0.6 + change)) for one, change in zip(candidates, noise, strict=True)}
    taken += pick_steps(rows).steps != UNCHANGED
  assert 0 < taken < 60


def test_a_gain_that_one_case_decides_is_none():
  """Each is best by one case alone, and costs the others a little."""
  first, second = Postprocessing(threshold=0.3), Postprocessing(threshold=0.7)
  rows = {
    UNCHANGED: scores(*[0.5] * 6),
    first: scores(0.53, 0.53, 0.53, 0.499, 0.499, 0.499),
    second: scores(0.499, 0.499, 0.499, 0.53, 0.53, 0.53),
  }
  assert pick_steps(rows).steps == UNCHANGED
  del rows[second]
  assert pick_steps(rows).steps == first


def test_cases_without_a_score_decide_nothing():
  found = pick_steps(
    {UNCHANGED: scores(*[math.nan] * 3), Postprocessing(0.3): scores(*[math.nan] * 3)}
  )
  assert found.steps == UNCHANGED
  assert math.isnan(found.before)


def test_of_equal_steps_those_that_do_less_are_chosen():
  candidates = list_candidates()
  assert candidates[0] == UNCHANGED
  assert len(set(candidates)) == len(candidates)
  changes = [sum(a != b for a, b in zip(*map(dataclasses.astuple, (one, UNCHANGED)), strict=True))
             for one in candidates]  # fmt: skip
  assert changes == sorted(changes)
