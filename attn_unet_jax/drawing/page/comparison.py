"""Writes the HTML of a comparison of runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from attn_unet_jax.drawing.page.document import (
  describe_style,
  embed_volumes,
  write_page,
)
from attn_unet_jax.drawing.page.summary import write_meanings, write_table
from attn_unet_jax.drawing.page.volumes import EmbeddedCase


@dataclass(frozen=True)
class Scatter:
  """A diagram of the scores of two runs.

  Attributes:
    title: of the diagram.
    first: the run along the horizontal axis.
    second: the run along the vertical axis.
    cases: the names of cases, and the scores of both runs.
    about: what the tests say.
  """

  title: str
  first: str
  second: str
  cases: Sequence[tuple[str, float, float]]
  about: str


@dataclass(frozen=True)
class ComparisonPage:
  """What the page of a comparison shows. All texts are shown as they are, HTML in them too.

  Attributes:
    title: of the page.
    lead: a sentence about it.
    head: the names of the table's columns.
    rows: its cells.
    metrics: the scores that it has.
    differences: a row for each setting in which the runs differ: its name, and each run's value.
    notes: what the table means, and what is missing.
    classes: the names of the classes.
    scatters: the diagrams.
    runs: the names of the runs, in the order of the pictures.
    pictures: of the cases that differ most, the same slice by each run.
    record: titles and texts.
    unknown: the classes without a truth in any case.
  """

  title: str
  lead: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  metrics: Sequence[str]
  differences: Sequence[Sequence[str]]
  notes: Sequence[str]
  classes: Sequence[str]
  scatters: Sequence[Scatter]
  runs: Sequence[str]
  pictures: Sequence[tuple[str, Sequence[EmbeddedCase]]] = ()
  record: Sequence[tuple[str, str]] = ()
  unknown: Sequence[str] = ()


def write_comparison(page: ComparisonPage) -> str:
  """Returns the page of a comparison as HTML that needs no other file and no network."""
  volumes: dict[str, str] = {}
  thumbs = list[dict[str, Any]]()
  places = dict[str, int]()
  for case, pictures in page.pictures:
    # The dots of a case lead to its first picture.
    places[case] = len(thumbs)
    for picture in pictures:
      # The script names the elements of pictures by these numbers.
      places.setdefault(picture.id, len(thumbs))
      thumbs.append(embed_volumes(picture, "thumb", volumes))
  data: dict[str, Any] = {
    # The scripts are those of a run's page and read every one of its keys.
    "panels": [],
    "gates": [],
    "spreads": [],
    "epochs": [1, 1],
    "places": places,
    "scatters": [_describe_scatter(one) for one in page.scatters],
    **describe_style(page.classes, page.unknown),
    "shown": [],
    "thumbs": thumbs,
  }
  sections = [
    ("table", "Scores", [*_write_scores(page)]),
    ("differences", "What differs in the settings", [*_write_differences(page)]),
    ("cases", "Case by case", [*_write_scatters(page)]),
    ("pictures", "The cases that differ most", [*_write_pictures(page)]),
    ("record", "Record", [*_write_record(page.record)]),
  ]
  # Runs of equal settings have no differences, and without case scores there are no diagrams.
  sections = [section for section in sections if section[2]]
  return write_page(page.title, page.lead, sections, data, volumes)


def _describe_scatter(scatter: Scatter) -> dict[str, Any]:
  values = [value for _, *pair in scatter.cases for value in pair]
  return {
    "title": scatter.title,
    "first": scatter.first,
    "second": scatter.second,
    "cases": scatter.cases,
    "about": scatter.about,
    # Shares are shown on their whole range, so that pages can be compared.
    "limits": [0, 1] if all(0 <= value <= 1 for value in values) else None,
  }


def _write_scores(page: ComparisonPage) -> Iterator[str]:
  yield from write_table(page.head, page.rows, kind="scores")
  yield from (f"<p>{escape(note)}</p>" for note in page.notes)
  yield from write_meanings(page.metrics)


def _write_differences(page: ComparisonPage) -> Iterator[str]:
  if page.differences:
    yield from write_table(["setting", *page.runs], page.differences, kind="words")


def _write_scatters(page: ComparisonPage) -> Iterator[str]:
  if not page.scatters:
    return
  yield (
    '<p class="soft">A dot is a case: further to the right the higher its score by the run that is '
    "named below, further up the higher by the run named at the side. On the dashed line both are "
    "alike.</p>"
  )
  yield '<div class="charts" id="scatters"></div>'


def _write_pictures(page: ComparisonPage) -> Iterator[str]:
  if not page.pictures:
    yield '<p class="soft">There are no pictures.</p>'
    return
  yield (
    '<p class="soft">Of each case the axial slice in which the runs differ most, by each run. '
    "Truth is outlined solid, the prediction dashed.</p>"
  )
  yield '<div id="keys"></div>'
  # The script draws them, the runs of a case in one row.
  yield f'<div class="thumbs pairs" id="thumbs" style="--runs: {len(page.runs)}"></div>'


def _write_record(record: Sequence[tuple[str, str]]) -> Iterator[str]:
  for title, text in record:
    yield f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
