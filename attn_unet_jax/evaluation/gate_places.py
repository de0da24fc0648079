"""Measures where attention gates are open: in the organ, around it and elsewhere."""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.volumes.places import PLACES

_COLUMNS = ("case", "gate", *PLACES)

# By the name of a gate the mean coefficient by place; NaN where a place has no voxels.
GateMeans = Mapping[str, Mapping[str, float]]


def measure_gates(
  values: np.ndarray, names: Sequence[str], places: np.ndarray, known: np.ndarray
) -> dict[str, dict[str, float]]:
  """Returns the mean coefficient of each gate in each place.

  Args:
    values: coefficients `[X, Y, Z, G]`.
    names: of the G gates.
    places: as `divide_places` returns them.
    known: bool `[X, Y, Z]`; other voxels are in no place.
  """
  # Where no window looked, outside a box or in the air around the body, all gates are exactly 0.
  looked = known & values.any(-1)
  chosen = [looked & (places == index) for index in range(len(PLACES))]
  return {
    name: {
      # NumPy warns of the mean of nothing.
      place: float(values[..., index][mask].mean()) if mask.any() else math.nan
      for place, mask in zip(PLACES, chosen, strict=True)
    }
    for index, name in enumerate(names)
  }


def write_gate_means(path: Path, found: Mapping[str, GateMeans]) -> None:
  """Writes the means of cases as CSV, a line for each case and gate."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(_COLUMNS)
  for case, gates in found.items():
    for name, means in gates.items():
      writer.writerow([case, name, *(f"{means[place]:.6g}" for place in PLACES)])
  path.parent.mkdir(parents=True, exist_ok=True)
  write_text(path, text.getvalue())


def read_gate_means(path: Path) -> dict[str, dict[str, dict[str, float]]]:
  """Reads what `write_gate_means` wrote; a missing file has no cases.

  Raises:
    UserError: the file is not as it was written.
  """
  if not path.is_file():
    return {}
  found: dict[str, dict[str, dict[str, float]]] = {}
  try:
    with path.open(newline="", encoding="utf-8") as file:
      for row in csv.DictReader(file):
        means = {place: float(row[place]) for place in PLACES}
        found.setdefault(row["case"], {})[row["gate"]] = means
  except (KeyError, TypeError, ValueError, csv.Error) as error:
    raise UserError(
      f"{path}: not a table of attention ({error}); put it right, or remove it: the report goes on "
      "without it"
    ) from None
  return found


def average_cases(found: Mapping[str, GateMeans]) -> dict[str, dict[str, tuple[float, float]]]:
  """Returns by gate and place the mean over the cases and their standard deviation.

  A case without a voxel of a place counts in no mean of it. One case has no deviation: NaN.
  """
  # A set would lose the order of the network, from the finest level on.
  names = list(dict.fromkeys(name for gates in found.values() for name in gates))
  return {
    name: {place: _describe(_list_values(found, name, place)) for place in PLACES} for name in names
  }


def describe_gates(found: Mapping[str, GateMeans]) -> Iterator[str]:
  """Yields a line for each gate: its mean over the cases by place."""
  for name, means in average_cases(found).items():
    said = ", ".join(f"{place} {means[place][0]:.3f}" for place in PLACES)
    yield f"attention {name}: {said}"


def _list_values(found: Mapping[str, GateMeans], name: str, place: str) -> list[float]:
  values = (gates[name][place] for gates in found.values() if name in gates)
  return [value for value in values if math.isfinite(value)]


def _describe(values: Sequence[float]) -> tuple[float, float]:
  mean = statistics.fmean(values) if values else math.nan
  return mean, statistics.stdev(values) if len(values) > 1 else math.nan
