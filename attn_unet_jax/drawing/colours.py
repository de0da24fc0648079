"""Colours that people with any colour vision tell apart (Okabe and Ito, 2008)."""

Colour = tuple[int, int, int]

ORANGE: Colour = (230, 159, 0)
SKY_BLUE: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)

# Bright ones first, as the outlines lie on grey tissue.
_OF_CLASSES = (ORANGE, SKY_BLUE, YELLOW, PURPLE, GREEN, VERMILION, BLUE)


def choose_colour(value: int) -> Colour:
  """Returns the colour of class `value`, from 1; the colours repeat after the seventh class."""
  return _OF_CLASSES[(value - 1) % len(_OF_CLASSES)]


def to_hex(colour: Colour) -> str:
  """Writes a colour as `#e69f00`."""
  return "#" + "".join(f"{part:02x}" for part in colour)
