"""Whether the scores of a run are those of its network as it is handed on."""

from collections.abc import Mapping
from typing import Any

from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing, parse_steps


def explain_other_scores(
  summary: Mapping[str, Any], checkpoint_step: int, steps: Postprocessing
) -> str:
  """Says why test scores are not those that a network reaches; '' if they are.

  Args:
    summary: the content of `evaluation/summary.json`.
    checkpoint_step: the step of the checkpoint that is handed on.
    steps: the steps after the network that are handed on with it.
  """
  # Scores of validation cases, which chose the checkpoint, say nothing of it either.
  if summary.get("part") != "test" or summary.get("checkpoint_step") != checkpoint_step:
    return f"was not tested with its best checkpoint, of step {checkpoint_step}"
  if summary.get("tta") or summary.get("tta_scales"):
    return "was tested with averages over mirror images or scaled copies (--tta, --tta_scales)"
  if _read_steps(summary) != steps:
    return f"was tested with other steps after the network than go with it ({steps.describe()})"
  return ""


def _read_steps(summary: Mapping[str, Any]) -> Postprocessing | None:
  """Reads the steps of scores; None if they are damaged, and so are none that a run takes."""
  said = summary.get("postprocessing")
  try:
    return parse_steps(said) if said else UNCHANGED
  except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
    return None
