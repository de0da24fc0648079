"""Test-time augmentation: predictions of mirrored scans are mirrored back and averaged."""

import re
from collections.abc import Sequence

import numpy as np

from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume

# The axes of the working grid, which is canonical: right, anterior and superior.
AXES = "xyz"
_SIDES = frozenset({"left", "right", "l", "r", "lt", "rt", "links", "rechts"})
_OTHER_SIDE = {"left": "right", "links": "rechts", "l": "r"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}
# Within a name the words, at its ends their first letters too.
_SIDE_IN_NAME = (r"left|right|links|rechts", r"^[lr]", r"[lr]$")


class MirroredSystem:
  """A system that averages what another one says about a scan and about its mirror images.

  Along n axes these are 2 ** n predictions. They are averaged in pairs, so that equal values stay
  what they are, to the bit.

  Args:
    system: segments a working-grid volume.
    axes: the numbers of the axes.
  """

  def __init__(self, system: SegmentationSystem, axes: Sequence[int]):
    self._system, self._axes = system, tuple(axes)

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`; an array of that size more an axis."""
    return self._average(volume, self._axes)

  def _average(self, volume: Volume, axes: tuple[int, ...]) -> np.ndarray:
    if not axes:
      return self._system.predict(volume)
    axis, *others = axes
    # The copy is for a device, which takes no array with negative strides at once.
    mirrored = Volume(np.ascontiguousarray(np.flip(volume.array, axis)), volume.affine)
    plain = self._average(volume, tuple(others))
    back = np.flip(self._average(mirrored, tuple(others)), axis)
    mean: np.ndarray = plain + back
    mean *= np.float32(0.5)
    return mean


def parse_mirrors(text: str) -> tuple[int, ...]:
  """Reads the axes of `--tta`, such as `x,y` or `xyz`; '' are none.

  Raises:
    UserError: a letter is none of x, y and z.
  """
  letters = [letter for letter in text.lower() if letter not in ", "]
  if unknown := [letter for letter in letters if letter not in AXES]:
    raise UserError(
      f"--tta={text}: {unknown[0]!r} is no axis; they are x (left and right), y (front and back) "
      "and z (head and feet), as in --tta=y,z"
    )
  return tuple(sorted({AXES.index(letter) for letter in letters}))


def find_sided_classes(classes: Sequence[str]) -> list[str]:
  """Returns the classes that are one side of the body by their names.

  Either a word of the name says a side, as in `kidney_left`, or another class has the name of the
  other side, as `rkid` has beside `lkid`.
  """
  # Of one name alone its letters say nothing: `liver` begins with an l, and `rectal` ends with one.
  lowered = {name.lower() for name in classes}
  return [
    name
    for name in classes
    if _SIDES & set(_split_name(name)) or _mirror_name(name.lower()) & lowered
  ]


def _split_name(name: str) -> list[str]:
  # `leftKidney` has two words too; L1 is a vertebra and no side.
  return re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _mirror_name(name: str) -> set[str]:
  """Returns what the class of the other side could be called; nothing of a name without sides."""
  mirrored = {
    re.sub(pattern, lambda side: _OTHER_SIDE[side.group()], name) for pattern in _SIDE_IN_NAME
  }
  return mirrored - {name}
