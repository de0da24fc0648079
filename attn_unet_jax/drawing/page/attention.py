"""Writes where attention gates look, in numbers: over the cases and over the epochs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from attn_unet_jax.volumes.places import PLACES, SHELL_MM

# By case and gate the mean coefficient by place.
GateTable = Mapping[str, Mapping[str, Mapping[str, float]]]

_MAX_CASES = 100  # in the table of each case
_NAMES = ("in the organ", f"within {SHELL_MM:g} mm of it", "elsewhere")


def describe_places(means: Mapping[str, float]) -> str:
  """Says the mean coefficients of a gate; a place without voxels is left out."""
  said = [
    f"{name} {means[place]:.3f}"
    for name, place in zip(_NAMES, PLACES, strict=True)
    if math.isfinite(means[place])
  ]
  return f"mean coefficient {', '.join(said)}"


def write_gates(
  means: Mapping[str, Mapping[str, tuple[float, float]]], cases: GateTable
) -> Iterator[str]:
  """Yields the tables of gates as HTML.

  Args:
    means: by gate and place the mean over the cases and its standard deviation.
    cases: the same of each case.
  """
  if not means:
    return
  yield (
    '<p class="soft">A gate multiplies the features of a skip connection by a coefficient: at 1 '
    "they pass, at 0 they are held back. level4/0 is the first gate of the coarsest level that has "
    f"gates. These are means over {len(cases)} scored cases, \u00b1 their standard deviation.</p>"
  )
  yield from _open_table(["gate", *_NAMES, "organ : elsewhere"])
  for name, gate in means.items():
    cells = [_format(*gate[place]) for place in PLACES]
    organ, elsewhere = gate["organ"][0], gate["elsewhere"][0]
    ratio = f"{organ / elsewhere:.2f}" if elsewhere else ""
    yield _write_row([name, *cells, ratio.replace("nan", "")])
  few = len(cases) <= _MAX_CASES
  part = "Each case" if few else f"The first {_MAX_CASES} of {len(cases)} cases of attention.csv"
  yield f"</tbody></table></div><details><summary>{part}</summary>"
  yield from _open_table(["case", "gate", *_NAMES])
  for case, gates in islice(cases.items(), _MAX_CASES):
    for name, gate_means in gates.items():
      yield _write_row([case, name, *(_format(gate_means[place]) for place in PLACES)])
  yield "</tbody></table></div></details>"


def collect_gate_panels(epochs: Sequence[tuple[int, str, Mapping[str, float]]]) -> list[Any]:
  """Returns the diagrams of gates over the epochs, one for each gate.

  Args:
    epochs: rows of an epoch, a gate and its mean coefficients by place.
  """
  return [
    {
      "title": f"{gate}: mean coefficient",
      "logarithmic": False,
      "limits": None,
      "curves": [
        {
          "name": name,
          "points": [
            (epoch, means[place])
            for epoch, other, means in epochs
            if other == gate and math.isfinite(means[place])
          ],
        }
        for name, place in zip(_NAMES, PLACES, strict=True)
      ],
    }
    for gate in dict.fromkeys(gate for _, gate, _ in epochs)
  ]


def _format(mean: float, deviation: float = math.nan) -> str:
  if not math.isfinite(mean):
    return "none"
  return f"{mean:.3f}" + (f" \u00b1 {deviation:.3f}" if math.isfinite(deviation) else "")


def _open_table(columns: Sequence[str]) -> Iterator[str]:
  head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
  yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>'


def _write_row(cells: Sequence[str]) -> str:
  first, *rest = (escape(cell) for cell in cells)
  values = "".join(f"<td>{cell}</td>" for cell in rest)
  return f'<tr><th scope="row">{first}</th>{values}</tr>'
