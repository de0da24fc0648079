"""A legend: the colour, the name and the millilitres of every class."""

from collections.abc import Mapping

from attn_unet_jax.drawing.canvas import GREY, Canvas
from attn_unet_jax.drawing.colours import choose_colour

_LINE = 1.35  # the height of a line, by the size of the font


def write_legend(
  canvas: Canvas,
  millilitres: Mapping[str, float | None],
  x: float,
  y: float,
  width: float,
  *,
  size: int,
  lines: int,
  expected_dsc: Mapping[str, float] | None = None,
) -> None:
  """Writes an entry for every class, as many as fit, and how many do not.

  Args:
    canvas: where to.
    millilitres: by class, in the order of their values from 1; None if it is not known.
    x: of the left side.
    y: of the top.
    width: of a line; entries that do not fit into it start another.
    size: of the font.
    lines: how many there may be.
    expected_dsc: by class, where it is estimated.
  """
  at, line = x, 0
  for value, (name, ml) in enumerate(millilitres.items(), 1):
    text = name if ml is None else f"{name} {ml:.1f} ml"
    if expected_dsc and name in expected_dsc:
      text += f", expected DSC {expected_dsc[name]:.2f}"
    # Ample for any letters of the font; what is cut is cut by `width` below.
    needed = min(width, size * (1.6 + 0.56 * len(text)))
    rest = len(millilitres) - value + 1
    # The last line keeps room to say how many entries are left out.
    room = size * 6 if line == lines - 1 and rest > 1 else 0
    if at > x and at + needed > x + width - room:
      if line == lines - 1:
        top = y + line * size * _LINE
        canvas.write(f"+ {rest} more", at, top, size=size, colour=GREY)
        return
      at, line = x, line + 1
    top = y + line * size * _LINE
    canvas.fill_box(at, top + size * 0.15, size * 0.8, size * 0.8, choose_colour(value))
    written = canvas.write(text, at + size * 1.1, top, size=size, width=width - size * 1.1)
    at += size * 2.2 + written
