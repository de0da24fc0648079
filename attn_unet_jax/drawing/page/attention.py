"""Writes where attention gates look, in numbers: over the cases and over the epochs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attn_unet_jax.drawing.page.summary import write_table
from attn_unet_jax.volumes.places import PLACES, SHELL_MM

# By case and gate the mean coefficient by place.
GateTable = Mapping[str, Mapping[str, Mapping[str, float]]]

ABOUT_GATE_NAMES = (
  "An attention gate multiplies the features of a skip connection by a coefficient for each place: "
  "at 1 they pass, at 0 they are held back. One that is higher in the organ than elsewhere looks "
  "at the organ. level2/0 is the first gate of level 2; the lower the level, the finer its grid."
)
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
    f'<p class="soft">Means over {len(cases)} scored cases, \u00b1 their standard deviation.</p>'
  )
  rows = []
  for name, gate in means.items():
    organ, elsewhere = gate["organ"][0], gate["elsewhere"][0]
    # A gate may be shut elsewhere; where no case has the organ, its mean is NaN.
    ratio = f"{organ / elsewhere:.2f}" if elsewhere else ""
    rows.append([name, *(_format(*gate[place]) for place in PLACES), ratio.replace("nan", "")])
  yield from write_table(["gate", *_NAMES, "organ : elsewhere"], rows)
  few = len(cases) <= _MAX_CASES
  part = "Each case" if few else f"The first {_MAX_CASES} of {len(cases)} cases of attention.csv"
  yield f"<details><summary>{part}</summary>"
  rows = [
    [case, name, *(_format(gate_means[place]) for place in PLACES)]
    for case, gates in islice(cases.items(), _MAX_CASES)
    for name, gate_means in gates.items()
  ]
  yield from write_table(["case", "gate", *_NAMES], rows)
  yield "</details>"


def collect_gate_panels(epochs: Sequence[tuple[int, str, Mapping[str, float]]]) -> list[Any]:
  """Returns the diagrams of gates over the epochs, one for each gate.

  Args:
    epochs: rows of an epoch, a gate and its mean coefficients by place.
  """
  return [
    {
      "title": f"{gate}: mean coefficient",
      "logarithmic": False,
      # From 0, so that heights stand to one another as the coefficients do.
      "limits": [0, 0],
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
    # Each once, in the order of the network.
    for gate in dict.fromkeys(gate for _, gate, _ in epochs)
  ]


def _format(mean: float, deviation: float = math.nan) -> str:
  if not math.isfinite(mean):
    return "none"
  return f"{mean:.3f}" + (f" \u00b1 {deviation:.3f}" if math.isfinite(deviation) else "")
