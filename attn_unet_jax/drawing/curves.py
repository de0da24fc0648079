"""The curves of a run on one picture: losses, validation DSC and learning rate over the epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attn_unet_jax.drawing.canvas import BLACK, WHITE, Canvas
from attn_unet_jax.drawing.colours import BLUE, GREEN, ORANGE, PURPLE, VERMILION, Colour

_WIDTH, _HEIGHT = 1280, 800
# Numbers stand at the left, names of curves at the right, the title above, epochs below.
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 96, 200, 72, 34, 56
_LINES = (225, 225, 225)
_INK = (70, 70, 70)
_MOST_TICKS = 10  # on an axis: more numbers would touch


class Curve(NamedTuple):
  """A curve: its column of `metrics.csv`, its name and its colour."""

  column: str
  name: str
  colour: Colour


class Panel(NamedTuple):
  """One of the diagrams on the picture.

  Attributes:
    title: what its vertical axis shows.
    curves: in it.
    height: its share of the picture.
    logarithmic: whether the vertical axis is.
    limits: lowest and highest value that is always shown; None: those of the curves.
  """

  title: str
  curves: tuple[Curve, ...]
  height: float
  logarithmic: bool = False
  limits: tuple[float, float] | None = None


PANELS = (
  Panel(
    "loss on fixed patches",
    (
      Curve("train_seg_loss", "training", BLUE),
      Curve("validation_seg_loss", "validation", ORANGE),
      Curve("test_seg_loss", "test", GREEN),
    ),
    0.46,
  ),
  Panel(
    "DSC of the validation cases",
    (Curve("validation_dsc", "validation", VERMILION),),
    0.3,
    # Always the whole range, so that the pictures of two runs can be compared.
    limits=(0.0, 1.0),
  ),
  Panel("learning rate", (Curve("learning_rate", "last update", PURPLE),), 0.24, logarithmic=True),
)


def draw_curves(title: str, rows: Sequence[Mapping[str, str]]) -> bytes:
  """Draws the curves of a run; a value that was not measured is a gap that its line crosses.

  Args:
    title: of the picture.
    rows: of `metrics.csv`, as `read_metrics` returns them.

  Returns:
    a PNG file of 1280 x 800 pixels.
  """
  # Pillow does not smooth lines by itself.
  canvas = Canvas(_WIDTH, _HEIGHT, WHITE, oversampling=2)
  canvas.write(title, _LEFT, 14, size=22, colour=BLACK, width=_WIDTH - _LEFT - 20)
  epochs = [int(row["epoch"]) for row in rows]
  ends = (min(epochs, default=1), max(epochs, default=1))
  room = _HEIGHT - _TOP - _BOTTOM - _GAP * (len(PANELS) - 1)
  top = float(_TOP)
  for panel in PANELS:
    height = panel.height * room
    _draw_panel(canvas, panel, rows, ends, (top, top + height))
    top += height + _GAP
  for epoch in choose_ticks(*ends):
    # A run of few epochs has ticks in between, which are no epochs.
    if float(epoch).is_integer():
      x = _place(epoch, ends, (_LEFT, _WIDTH - _RIGHT))
      canvas.write(f"{epoch:g}", x, _HEIGHT - _BOTTOM + 8, size=14, colour=_INK, anchor="ma")
  middle = (_LEFT + _WIDTH - _RIGHT) / 2
  canvas.write("epoch", middle, _HEIGHT - 26, size=15, colour=_INK, anchor="ma")
  return canvas.encode()


def list_points(rows: Sequence[Mapping[str, str]], column: str) -> list[tuple[int, float]]:
  """Returns epoch and value wherever a column has a finite value."""
  points = [(int(row["epoch"]), _parse_value(row[column])) for row in rows]
  return [(epoch, value) for epoch, value in points if math.isfinite(value)]


def choose_ticks(low: float, high: float) -> list[float]:
  """Returns round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
  # One value has no range to divide, and its logarithm below does not exist.
  if not high > low:
    return [low]
  step = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
  # The range is less than 100 of these steps, so that 10 of them fit at the latest.
  step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= _MOST_TICKS)
  # A quotient may miss its whole number by rounding, and a product too: 3 x 0.1 is not 0.3.
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [round(number * step, 12) for number in range(first, last + 1)]


def _draw_panel(
  canvas: Canvas,
  panel: Panel,
  rows: Sequence[Mapping[str, str]],
  epochs: tuple[int, int],
  edges: tuple[float, float],
) -> None:
  """Draws a diagram between two heights of the picture."""
  top, bottom = edges
  right = _WIDTH - _RIGHT
  canvas.write(panel.title, _LEFT, top - 5, size=14, colour=_INK, anchor="lb")
  points = {curve: _scale_points(panel, list_points(rows, curve.column)) for curve in panel.curves}
  values = [value for found in points.values() for _, value in found]
  limits = _choose_limits(values, panel)
  for tick in _choose_panel_ticks(panel, limits, bottom - top):
    y = _place(tick, limits, (bottom, top))
    canvas.draw_line([(_LEFT, y), (right, y)], _LINES)
    number = 10.0**tick if panel.logarithmic else tick
    canvas.write(f"{number:.4g}", _LEFT - 8, y, size=14, colour=_INK, anchor="rm")
  for x in (_LEFT, right):
    canvas.draw_line([(x, top), (x, bottom)], _LINES)
  for row, curve in enumerate(panel.curves):
    y = top + 14 + row * 44
    canvas.draw_line([(right + 12, y), (right + 36, y)], curve.colour, 3)
    canvas.write(curve.name, right + 44, y, size=15, colour=BLACK, anchor="lm", width=150)
    placed = [
      (_place(epoch, epochs, (_LEFT, right)), _place(value, limits, (bottom, top)))
      for epoch, value in points[curve]
    ]
    if not placed:
      canvas.write("not measured yet", right + 44, y + 18, size=13, colour=_INK, anchor="lm")
      continue
    if len(placed) > 1:
      canvas.draw_line(placed, curve.colour, 2.5)
    # Single points show where few epochs were measured; of many they would be a thick line.
    for dot_x, dot_y in placed if len(placed) <= 40 else placed[-1:]:
      canvas.fill_dot(dot_x, dot_y, 4, curve.colour)
    last = points[curve][-1][1]
    shown = f"now {10.0**last if panel.logarithmic else last:.4g}"
    canvas.write(shown, right + 44, y + 18, size=13, colour=_INK, anchor="lm")


def _scale_points(panel: Panel, points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
  if not panel.logarithmic:
    return list(points)
  # A learning rate may be 0, which no logarithmic axis has.
  return [(epoch, math.log10(value)) for epoch, value in points if value > 0]


def _choose_limits(values: Sequence[float], panel: Panel) -> tuple[float, float]:
  shown = [*values, *(panel.limits or ())]
  # The axis is drawn before anything is measured.
  if not shown:
    return 0.0, 1.0
  low, high = min(shown), max(shown)
  if panel.logarithmic:  # whole powers of ten
    return float(math.floor(low)), float(max(math.ceil(high), math.floor(low) + 1))
  # A constant curve lies in the middle of its diagram.
  if high == low:
    return low - 0.5, high + 0.5
  # Keeps the curve off the frame. Limits that were given are shown as they are.
  margin = 0.0 if panel.limits else 0.04 * (high - low)
  return low - margin, high + margin


def _choose_panel_ticks(panel: Panel, limits: tuple[float, float], height: float) -> list[float]:
  if panel.logarithmic:
    ticks = [float(power) for power in range(int(limits[0]), int(limits[1]) + 1)]
  else:
    ticks = choose_ticks(*limits)
  # 22 pixels a number at least.
  return ticks[:: max(1, math.ceil(len(ticks) * 22 / height))]


def _place(value: float, limits: tuple[float, float], edges: tuple[float, float]) -> float:
  low, high = limits
  share = (value - low) / (high - low) if high > low else 0.5
  return edges[0] + share * (edges[1] - edges[0])


def _parse_value(text: str) -> float:
  try:
    return float(text)
  except ValueError:  # '' where nothing was measured
    return math.nan
