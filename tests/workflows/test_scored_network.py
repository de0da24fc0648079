"""Scores go with a network only where it reaches them as it is handed on."""

import dataclasses

import pytest

from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.workflows.scored_network import explain_other_scores

STEPS = Postprocessing(largest=True, values=(1,))
SAID = {**dataclasses.asdict(STEPS), "values": [1]}  # as JSON gives it back
TESTED = {"part": "test", "checkpoint_step": 7}


@pytest.mark.parametrize(
  ("changes", "steps", "said"),
  [
    ({}, UNCHANGED, ""),
    ({"no_postprocess": True}, UNCHANGED, ""),
    ({"postprocessing": SAID}, STEPS, ""),
    ({"part": "validation"}, UNCHANGED, "was not tested with its best checkpoint, of step 7"),
    ({"part": None}, UNCHANGED, "was not tested"),
    ({"checkpoint_step": 3}, UNCHANGED, "was not tested"),
    ({"tta": "xy"}, UNCHANGED, "was tested with averages over mirror images"),
    ({"tta_scales": [0.9]}, UNCHANGED, "was tested with averages over mirror images"),
    ({}, STEPS, "steps after the network than go with it (largest component, of class 1 alone)"),
    ({"no_postprocess": True}, STEPS, "was tested with other steps after the network"),
    ({"postprocessing": SAID}, UNCHANGED, "than go with it (nothing)"),
    ({"postprocessing": {"largest": True}}, STEPS, "was tested with other steps"),  # damaged
    ({"postprocessing": "largest"}, STEPS, "was tested with other steps"),
  ],
)
def test_scores_of_another_network_are_told_apart(changes, steps, said):
  found = explain_other_scores(TESTED | changes, 7, steps)
  assert said in found
  assert bool(found) == bool(said)
