"""Colours of classes: the first ones people with any colour vision tell apart.

They are those of Okabe and Ito (2008), which are no more than eight, and one of these is black.
"""

import numpy as np

Colour = tuple[int, int, int]

ORANGE: Colour = (230, 159, 0)
SKY_BLUE: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)

# Bright ones first, as the outlines lie on grey tissue.
_OF_CLASSES = (
  *(ORANGE, SKY_BLUE, YELLOW, PURPLE, GREEN, VERMILION, BLUE),
  # Data sets of the abdomen have up to 15 organs. At least as far from these, and from one another,
  # as sky blue is from blue (CIELAB).
  *((255, 60, 60), (120, 240, 60), (150, 110, 255), (0, 240, 230), (255, 80, 255)),
  *((255, 190, 200), (170, 110, 60), (150, 170, 60), (190, 255, 190)),
)

# Of overlays, from 0 to 1: ever brighter, so that they are read without colour too. The pages have
# the same in `page/viewer.js`.
_RAMP = np.array([[0, 0, 0], [110, 20, 110], [220, 60, 70], [250, 150, 20], [250, 250, 110]])


def choose_colour(value: int) -> Colour:
  """Returns the colour of class `value`, from 1; the colours repeat after the 16th class."""
  return _OF_CLASSES[(value - 1) % len(_OF_CLASSES)]


def to_hex(colour: Colour) -> str:
  """Writes a colour as `#e69f00`."""
  return "#" + "".join(f"{part:02x}" for part in colour)


def shade_shares(shares: np.ndarray) -> np.ndarray:
  """Returns the colours of shares from 0 to 1, as RGB in a last axis, float64."""
  steps = np.linspace(0, 1, len(_RAMP))
  return np.stack([np.interp(shares, steps, part) for part in _RAMP.T], -1)


def blend_shares(picture: np.ndarray, shares: np.ndarray) -> np.ndarray:
  """Lays the colours of shares over a picture, the denser the higher they are.

  Args:
    picture: RGB [H, W, 3].
    shares: from 0 to 1, [H, W].

  Returns:
    RGB [H, W, 3], float64.
  """
  weight = (40 / 255 + 0.6 * shares)[..., None]
  blended: np.ndarray = picture * (1 - weight) + shade_shares(shares) * weight
  return blended
