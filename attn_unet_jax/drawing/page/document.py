"""Writes the HTML of a run's page."""

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from attn_unet_jax.drawing import colours
from attn_unet_jax.drawing.colours import Colour, choose_colour, to_hex
from attn_unet_jax.drawing.curves import PANELS, list_points
from attn_unet_jax.drawing.page.attention import (
  ABOUT_GATE_NAMES,
  GateTable,
  collect_gate_panels,
  write_gates,
)
from attn_unet_jax.drawing.page.spreads import choose_lines, collect_spreads, parse_number
from attn_unet_jax.drawing.page.summary import write_summary, write_table
from attn_unet_jax.drawing.page.volumes import CODED_HU, EmbeddedCase

WINDOWS_HU = (
  ("abdomen", (-160, 240)),
  ("soft tissue", (-50, 150)),
  ("wide", (-1000, 1000)),
)
_SCRIPTS = ("charts.js", "surface.js", "viewer.js")
# Of truth and prediction, class after class: the two differ in colour and in the line's style. More
# classes than these have a colour each, and the style alone tells truth from prediction.
_OUTLINES = (
  (colours.SKY_BLUE, colours.ORANGE),
  (colours.GREEN, colours.YELLOW),
  (colours.PURPLE, colours.VERMILION),
)
# The page may load nothing and send nothing, whatever stands in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class RunPage:
  """What the page of a run shows. All texts are shown as they are, HTML in them too.

  Attributes:
    title: of the page.
    lead: a sentence about the run.
    facts: names and values of the summary.
    notes: sentences about what is missing.
    metrics: the rows of `metrics.csv`.
    fold_metrics: those of each fold by its name, of a run of all folds.
    classes: the names of the classes.
    summary: the content of `summary.json`; empty without scores.
    scores: the rows of `cases.csv`.
    unknown: the classes without a truth in any case.
    published: figures of papers on the same data: paper, method, DSC, cases.
    shown: the cases of the viewer.
    thumbnails: further cases, of one slice each.
    gates: by gate and place the mean coefficient over the cases, and its standard deviation.
    gate_cases: the mean coefficients of each case by gate and place.
    gate_epochs: the same after each epoch: epoch, gate, and coefficients by place.
    record: titles and texts of the run's files.
  """

  title: str
  lead: str
  facts: Sequence[tuple[str, str]]
  notes: Sequence[str] = ()
  metrics: Sequence[Mapping[str, str]] = ()
  fold_metrics: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
  classes: Sequence[str] = ()
  summary: Mapping[str, Any] = field(default_factory=dict)
  scores: Sequence[Mapping[str, str]] = ()
  unknown: Sequence[str] = ()
  published: Sequence[Sequence[str]] = ()
  shown: Sequence[EmbeddedCase] = ()
  thumbnails: Sequence[EmbeddedCase] = ()
  gates: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
  gate_cases: GateTable = field(default_factory=dict)
  gate_epochs: Sequence[tuple[int, str, Mapping[str, float]]] = ()
  record: Sequence[tuple[str, str]] = ()


def write_document(page: RunPage) -> str:
  """Returns the page of a run as HTML that needs no other file and no network."""
  places = _number_cases(page)
  sections = [
    (
      "summary",
      "Summary",
      [*write_summary(page.facts, page.notes, page.summary, page.published)],
    ),
    ("training", "Training", [*_write_training(page)]),
    ("scores", "Scores of the cases", [*_write_cases(page, places)]),
    ("pictures", "Cases", [*_write_viewer(page)]),
    ("attention", "Where the gates look", [*_write_attention(page)]),
    ("record", "Record", [*_write_record(page)]),
  ]
  # A network without gates has nothing to say about them.
  sections = [section for section in sections if section[2] or section[0] != "attention"]
  return write_page(page.title, page.lead, sections, *_collect_data(page, places))


def write_page(
  title: str,
  lead: str,
  sections: Sequence[tuple[str, str, Sequence[str]]],
  data: Mapping[str, Any],
  volumes: Mapping[str, str],
) -> str:
  """Returns HTML that needs no other file and no network.

  Args:
    title: of the page, as text.
    lead: a sentence below it, as text.
    sections: id, title and HTML of each.
    data: what the scripts read.
    volumes: encoded volumes by the id of their element.
  """
  links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
  body = [f"<header><h1>{_escape(title)}</h1><p>{_escape(lead)}</p>"]
  body += [f'<nav aria-label="sections">{links}</nav></header><main>']
  # The tables below are plain HTML, for a reader without scripts too.
  body += ["<noscript><p>Curves and pictures need JavaScript.</p></noscript>"]
  for name, heading, content in sections:
    body += [f'<section id="{name}"><h2>{heading}</h2>', *content, "</section>"]
  head = [
    '<meta charset="utf-8">',
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>{_escape(title)}</title>",
    '<link rel="icon" href="data:,">',  # else a browser asks for one
    f"<style>\n{_read_asset('report.css')}</style>",
  ]
  # At the end of the body, so that the elements that the scripts look up exist.
  scripts = [f'<script type="application/json" id="data">{_write_json(data)}</script>']
  # Base64 has no letter that could end the element.
  scripts += [
    f'<script type="text/plain" id="{name}">{text}</script>' for name, text in volumes.items()
  ]
  scripts += [f"<script>\n{_read_asset(name)}</script>" for name in _SCRIPTS]
  return "\n".join(
    ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>"]
    + [*body, "</main>", *scripts, "</body>", "</html>", ""]
  )


def _number_cases(page: RunPage) -> dict[str, int]:
  """Returns a number for each case that links can lead to: with a picture or a line."""
  # Numbers, since the id of an element must not have the spaces that a case's name may have.
  there = {one.id for one in (*page.shown, *page.thumbnails)}
  there |= {row["case"] for row in choose_lines(page.scores)}
  names = dict.fromkeys(row["case"] for row in page.scores)
  return {case: number for number, case in enumerate(names) if case in there}


def _write_training(page: RunPage) -> Iterator[str]:
  yield (
    '<p class="soft">The loss is what the training lowers, here on patches that stay the same. The '
    "DSC is the overlap of prediction and truth over whole scans, 1 is perfect. The learning rate "
    "is how far one update moves the network.</p>"
  )
  yield '<div class="charts" id="curves"></div>'
  yield from _write_epochs(page)


def _write_epochs(page: RunPage) -> Iterator[str]:
  for name, rows in page.fold_metrics.items():
    # A fold that has not begun has no epochs yet.
    if rows:
      yield f"<details><summary>The numbers of every epoch, {_escape(name)}</summary>"
      yield from write_table([*rows[0]], [[*row.values()] for row in rows])
      yield "</details>"
  if page.fold_metrics:
    return
  if not page.metrics:
    yield '<p class="soft">This folder has no metrics.csv.</p>'
    return
  yield "<details><summary>The numbers of every epoch</summary>"
  yield from write_table([*page.metrics[0]], [[*row.values()] for row in page.metrics])
  yield "</details>"


def _write_cases(page: RunPage, places: Mapping[str, int]) -> Iterator[str]:
  if not page.scores:
    return
  drawn, left_out = collect_spreads(page.scores)
  more = f" Not drawn: {left_out} of {len(drawn) + left_out} diagrams." if left_out else ""
  yield f'<p class="soft">A dot is a case and leads to it; the line is the median.{more}</p>'
  yield '<div class="charts" id="spreads"></div>'
  rows = choose_lines(page.scores)
  few = len(rows) == len(page.scores)
  part = "All cases" if few else f"{len(rows)} of {len(page.scores)} lines of cases.csv"
  yield f"<details open><summary>{part}, the lowest DSC first</summary>"
  pictured = {one.id for one in (*page.shown, *page.thumbnails)}
  cells, named = [], set(pictured)
  # The case heads its row, wherever the file has its column.
  columns = [name for name in rows[0] if name != "case"]
  for row in rows:
    case, anchor = row["case"], f"case-{places[row['case']]}"
    # Where there is no picture, the links to the case lead to its first row.
    tag = (
      f'a href="#{anchor}"'
      if case in pictured
      else "span" + f' id="{anchor}"' * (case not in named)
    )
    named.add(case)
    rest = (_escape(_shorten(name, row[name])) for name in columns)
    # An end tag has no attributes.
    cells.append([f"<{tag}>{_escape(case)}</{tag.partition(' ')[0]}>", *rest])
  yield from write_table(["case", *columns], cells, escaped=True)
  yield "</details>"


def _shorten(column: str, text: str) -> str:
  """Returns a cell of `cases.csv` for a reader: four digits of a score, and no NaN."""
  # The name of a class or fold may look like a number.
  if column in ("class", "fold"):
    return text
  value = parse_number(text)
  return f"{value:.4g}" if math.isfinite(value) else "undefined"


def _write_viewer(page: RunPage) -> Iterator[str]:
  if page.shown:
    # The script follows the links to its cases, which are all shown in this one place.
    yield '<div id="viewer"></div>'
  else:
    yield '<p class="soft">There are no pictures.</p>'
  if page.thumbnails:
    yield "<h3>The other cases</h3>"
  yield '<div class="thumbs" id="thumbs"></div>'


def _write_attention(page: RunPage) -> Iterator[str]:
  if page.gate_epochs or page.gates:
    yield f'<p class="soft">{_escape(ABOUT_GATE_NAMES)}</p>'
  if page.gate_epochs:
    mean = ", mean over the folds" if page.fold_metrics else ""
    yield f"<h3>After each epoch, on the patches of the validation loss{mean}</h3>"
    yield '<div class="charts" id="gates"></div>'
  if page.gates:
    yield "<h3>In whole scans</h3>"
  yield from write_gates(page.gates, page.gate_cases)


def _write_record(page: RunPage) -> Iterator[str]:
  for title, text in page.record:
    yield f"<details><summary>{_escape(title)}</summary><pre>{_escape(text)}</pre></details>"


def _collect_data(
  page: RunPage, places: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns what the script reads, and the texts of the volumes by the id of their element."""
  volumes: dict[str, str] = {}
  epochs = [int(row["epoch"]) for rows in _list_metrics_of_runs(page) for row in rows]
  data = {
    "panels": _collect_panels(page) if epochs else [],
    "gates": collect_gate_panels(page.gate_epochs),
    # One range for all diagrams and folds, so that they can be compared by eye.
    "epochs": [min(epochs), max(epochs)] if epochs else [1, 1],
    "spreads": collect_spreads(page.scores)[0],
    "scatters": [],
    "places": places,
    **describe_style(page.classes, page.unknown),
    "shown": [embed_volumes(case, "shown", volumes) for case in page.shown],
    "thumbs": [embed_volumes(case, "thumb", volumes) for case in page.thumbnails],
  }
  return data, volumes


def describe_style(classes: Sequence[str], unknown: Sequence[str] = ()) -> dict[str, Any]:
  """Returns what the viewer's script reads of classes, windows and codes.

  Args:
    classes: their names.
    unknown: those without a truth in any case.
  """
  return {
    "kinds": ["truth", "prediction"],
    "classes": [
      {
        "name": name,
        "known": name not in unknown,
        "truth": to_hex(truth),
        "prediction": to_hex(prediction),
      }
      for name, (truth, prediction) in zip(classes, _choose_outlines(len(classes)), strict=True)
    ],
    "windows": WINDOWS_HU,
    "codes": CODED_HU,
  }


def _choose_outlines(count: int) -> Sequence[tuple[Colour, Colour]]:
  """Returns the colours of the truth and of the prediction of so many classes."""
  if count <= len(_OUTLINES):
    return _OUTLINES[:count]
  return [(choose_colour(value), choose_colour(value)) for value in range(1, count + 1)]


def embed_volumes(case: EmbeddedCase, kind: str, volumes: dict[str, str]) -> dict[str, Any]:
  """Returns what the viewer's script reads of a case, and adds its texts to `volumes`.

  Args:
    case: the case.
    kind: of its picture, the beginning of the ids of its elements.
    volumes: the texts by the id of their element.
  """

  def embed(text: str) -> str:
    """Adds a text; returns the id of its element."""
    # Texts are only ever added, so their number is not taken yet.
    place = f"{kind}-{len(volumes)}"
    volumes[place] = text
    return place

  texts = ("id", "role", "score", "about", "shape", "spacing", "centre", "map_shape")
  about = {name: getattr(case, name) for name in texts}
  maps = {
    name: {"place": embed(one.text), "low": one.low, "high": one.high, "about": one.about}
    for name, one in case.maps.items()
  }
  embedded = {name: embed(text) for name, text in case.volumes.items()}
  return {**about, "volumes": embedded, "maps": maps}


def _list_metrics_of_runs(page: RunPage) -> list[Sequence[Mapping[str, str]]]:
  return [page.metrics, *page.fold_metrics.values()]


def _collect_panels(page: RunPage) -> list[dict[str, Any]]:
  """Returns the diagrams of a run; of one of all folds, a diagram a column with a curve a fold."""
  if page.fold_metrics:
    return [
      {
        "title": panel.title if len(panel.curves) == 1 else f"{panel.title}: {curve.name}",
        "logarithmic": panel.logarithmic,
        "limits": panel.limits,
        "curves": [
          {"name": name, "points": list_points(rows, curve.column)}
          for name, rows in page.fold_metrics.items()
        ],
      }
      for panel in PANELS
      for curve in panel.curves
    ]
  return [
    {
      "title": panel.title,
      "logarithmic": panel.logarithmic,
      "limits": panel.limits,
      "curves": [
        {"name": curve.name, "points": list_points(page.metrics, curve.column)}
        for curve in panel.curves
      ],
    }
    for panel in PANELS
  ]


def _read_asset(name: str) -> str:
  return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _write_json(data: Any) -> str:
  # The only way out of a script element is `</script`, and `<!--` changes how it is read.
  return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _escape(text: str) -> str:
  return html.escape(str(text))
