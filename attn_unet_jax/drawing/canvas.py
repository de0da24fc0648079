"""A picture to paste slices, text and lines on, written as PNG by Pillow."""

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attn_unet_jax.drawing.colours import Colour
from attn_unet_jax.runtime.console import escape_controls

# Loaded when something is drawn: `--help` of every command has this module.
if TYPE_CHECKING:
  from PIL import ImageFont

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
GREY: Colour = (170, 170, 170)


@functools.cache  # Pillow unpacks it anew each time
def _load_font(size: int) -> "ImageFont.FreeTypeFont":
  from PIL import ImageFont

  font = ImageFont.load_default(size)
  # Pillow's type also names a bitmap font, which it returns only where no size is asked for.
  assert isinstance(font, ImageFont.FreeTypeFont)
  return font


class Canvas:
  """A picture that is being drawn.

  Args:
    width: in pixels.
    height: in pixels.
    background: its colour.
    oversampling: everything is drawn so many times larger and reduced at the end, which smooths
      lines. All other measures are those of the finished picture.
  """

  def __init__(self, width: int, height: int, background: Colour = BLACK, oversampling: int = 1):
    from PIL import Image, ImageDraw

    self._scale = oversampling
    self._image = Image.new("RGB", (width * oversampling, height * oversampling), background)
    self._pen = ImageDraw.Draw(self._image)

  def paste(self, picture: np.ndarray, x: int, y: int) -> None:
    """Puts RGB uint8 [H, W, 3] with its upper left corner at (x, y)."""
    from PIL import Image

    scale = self._scale
    tile = Image.fromarray(np.ascontiguousarray(picture))
    # Each pixel becomes a block of equal ones, which `encode` averages back to exactly this pixel.
    tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
    self._image.paste(tile, (x * scale, y * scale))

  def write(
    self,
    text: str,
    x: float,
    y: float,
    *,
    size: int = 16,
    colour: Colour = WHITE,
    anchor: str = "la",
    width: float | None = None,
  ) -> float:
    """Writes one line of text; returns how wide it is.

    Args:
      text: control characters are written out.
      x: of the anchor.
      y: of the anchor.
      size: of the font.
      colour: of the text.
      anchor: which point of the text lies at (x, y), as Pillow names it: `la` is the upper left
        corner, `mm` the middle, `rm` the middle of the right side.
      width: a longer text is cut in its middle, where names differ least.
    """
    font = _load_font(size * self._scale)
    shown = escape_controls(text)
    if width is not None:
      kept = len(shown)
      # Letters differ in width, so only trying tells how many fit. One at each end always stays.
      while font.getlength(shown) > width * self._scale and kept > 2:
        kept -= 1
        line = escape_controls(text)
        shown = line[: (kept + 1) // 2] + "..." + line[len(line) - kept // 2 :]
    self._pen.text((x * self._scale, y * self._scale), shown, fill=colour, font=font, anchor=anchor)
    return float(font.getlength(shown)) / self._scale

  def draw_line(
    self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1
  ) -> None:
    """Draws a line through points."""
    scaled = [(x * self._scale, y * self._scale) for x, y in points]
    # Pillow draws each piece of a line as a bar: without a joint thick lines gape where they turn.
    self._pen.line(scaled, fill=colour, width=max(1, round(width * self._scale)), joint="curve")

  def fill_box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    """Fills a rectangle."""
    left, top, scale = x * self._scale, y * self._scale, self._scale
    # Less one, as Pillow fills the last row and column too.
    self._pen.rectangle(
      (left, top, left + width * scale - 1, top + height * scale - 1), fill=colour
    )

  def fill_dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
    """Fills a disc."""
    x, y, radius = x * self._scale, y * self._scale, radius * self._scale
    self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

  def encode(self) -> bytes:
    """Returns the picture as a PNG file."""
    from PIL import Image

    width, height = (size // self._scale for size in self._image.size)
    image = self._image
    if self._scale > 1:
      image = image.resize((width, height), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)  # three times as fast as 6, a tenth larger
    return file.getvalue()
