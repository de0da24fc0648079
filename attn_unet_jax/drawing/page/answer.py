"""Writes the HTML of an answer: a scan, its mask, and how good the mask is expected to be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from attn_unet_jax.drawing.colours import choose_colour, to_hex
from attn_unet_jax.drawing.page.document import (
  describe_style,
  embed_volumes,
  write_page,
)
from attn_unet_jax.drawing.page.summary import write_table
from attn_unet_jax.drawing.page.volumes import EmbeddedCase

_EXPECTED = (
  "Expected DSC: the overlap with an expert's mask, 0 to 1, that the probabilities let expect, by "
  "what the run learnt on its validation cases."
)


@dataclass(frozen=True)
class AnswerPage:
  """What the page of an answer shows. All texts are shown as they are, HTML in them too.

  Attributes:
    title: of the page.
    lead: a sentence about it.
    classes: the names of the classes.
    millilitres: of each class.
    expected_dsc: of each class; empty where it is not estimated.
    warnings: sentences about the scan and its mask.
    case: the scan with its mask, without a truth.
  """

  title: str
  lead: str
  classes: Sequence[str]
  millilitres: Sequence[float]
  expected_dsc: Sequence[float]
  warnings: Sequence[str]
  case: EmbeddedCase


def write_answer_page(page: AnswerPage) -> str:
  """Returns the page of an answer as HTML that needs no other file and no network."""
  volumes: dict[str, str] = {}
  data: dict[str, Any] = {
    # The scripts are those of a run's page and read every one of its keys.
    "panels": [],
    "gates": [],
    "spreads": [],
    "epochs": [1, 1],
    "places": {},
    "scatters": [],
    **describe_style(page.classes),
    # No outline of a truth lies beside them: each class has a colour of its own.
    "kinds": ["prediction"],
    "classes": [
      {"name": name, "prediction": to_hex(choose_colour(value))}
      for value, name in enumerate(page.classes, 1)
    ],
    "shown": [embed_volumes(page.case, "shown", volumes)],
    "thumbs": [],
  }
  sections = [
    ("found", "What was found", [*_write_found(page)]),
    ("pictures", "Scan and mask", ['<div id="viewer"></div>']),
  ]
  return write_page(page.title, page.lead, sections, data, volumes)


def _write_found(page: AnswerPage) -> Iterator[str]:
  yield from (f"<p><strong>{escape(warning)}</strong></p>" for warning in page.warnings)
  rows = [[name, f"{ml:.2f}"] for name, ml in zip(page.classes, page.millilitres, strict=True)]
  if not page.expected_dsc:
    yield from write_table(["class", "ml"], rows)
    return
  rows = [[*row, f"{dsc:.2f}"] for row, dsc in zip(rows, page.expected_dsc, strict=True)]
  yield from write_table(["class", "ml", "expected DSC"], rows)
  yield f'<p class="soft">{escape(_EXPECTED)}</p>'
