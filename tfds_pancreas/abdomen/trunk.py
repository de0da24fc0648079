"""The trunk: skin, fat, muscles, spine, ribs and the bases of the lungs."""

from dataclasses import dataclass

import numpy as np

from tfds_pancreas.abdomen.canvas import LabelCanvas

BACK = 62.0  # mm from the centre of a vertebra to the skin of the back, before fat


@dataclass(frozen=True)
class TrunkSize:
  """The size of a trunk, in mm."""

  half_width: float  # skin to skin
  half_depth: float
  skin_fat: float  # thickness of the subcutaneous fat
  diaphragm: float  # height of the domes


def draw_trunk(canvas: LabelCanvas, size: TrunkSize) -> None:
  """Draws everything that holds the organs; what is left inside is fat."""
  depth = measure_trunk_depth(canvas, size)
  # Body first: whatever comes later replaces its fat. Bones come before the muscles on them.
  draw_body(canvas, depth)
  draw_spine(canvas)
  draw_ribs(canvas, depth - size.skin_fat)
  draw_muscles(canvas, depth - size.skin_fat)
  draw_lungs(canvas, measure_diaphragm_height(canvas, size), depth - size.skin_fat)
  canvas.taken |= depth < size.skin_fat  # no organ lies in the subcutaneous fat


def draw_body(canvas: LabelCanvas, depth: np.ndarray) -> None:
  """Draws the skin, and inside it fat.

  Args:
    canvas: where to draw.
    depth: under the skin in mm, [X, Y, Z]; negative outside the patient.
  """
  canvas.fill_organ("skin", -depth, over="background")
  skin = max(2.0, 0.3 * max(canvas.spacing))  # thinner, it would fall between coarse voxels
  canvas.fill_organ("fat", skin - depth, over="skin")


def measure_trunk_depth(canvas: LabelCanvas, size: TrunkSize) -> np.ndarray:
  """Measures the depth under the skin in mm (about), [X, Y, Z]; negative outside the patient."""
  x, y, _ = canvas.points
  middle = size.half_depth - BACK - 0.5 * size.skin_fat
  # An exponent a little above 2: a trunk is squarer than an ellipse.
  across = np.abs(x / size.half_width) ** 2.3
  along = np.abs((y - middle) / size.half_depth) ** 2.3
  depth: np.ndarray = (1 - (across + along) ** (1 / 2.3)) * size.half_depth
  return depth


def measure_diaphragm_height(canvas: LabelCanvas, size: TrunkSize) -> np.ndarray:
  """Measures the diaphragm's height above each voxel in mm, [X, Y, Z]; negative in the lungs."""
  x, y, z = canvas.points
  side = (np.abs(x) - 62) / 70  # from the top of the dome on this side
  top = size.diaphragm - 5 * (x < 0)  # the liver holds the right dome higher
  height: np.ndarray = top - 45 * side**2 - 55 * ((y - 35) / 90) ** 2 - z
  return height


def draw_spine(canvas: LabelCanvas) -> None:
  """Draws the vertebrae, the discs between them and the canal."""
  box = canvas.find_box((-45, -75, -300), (45, 30, 300))
  x, y, z = canvas.points[(slice(None), *box)]
  # A vertebra and its disc repeat every 35 mm.
  level = np.abs((z + 500) % 35 - 17.5)  # mm from the middle of a disc
  body = (np.sqrt((x / 23) ** 2 + (y / 17) ** 2) - 1) * 17
  canvas.fill_organ("disc", np.maximum(body, level - 5), box)
  canvas.fill_organ("bone", body, box)
  # Behind the body: the arch around the canal, the spinous process, the transverse processes. The
  # last two exist at the height of a vertebra only.
  canal = np.hypot(x, y + 26) - 8
  arch = np.maximum(np.hypot(x, y + 26) - 14, 8 - canal - 8)
  process = np.maximum(np.abs(x) - 4, np.maximum(np.abs(y + 48) - 16, 10 - level))
  wings = np.maximum(np.maximum(np.abs(y + 24) - 5, np.abs(x) - 38), 13 - level)
  canvas.fill_organ("disc", canal, box)  # the cord in its canal looks like a disc
  canvas.fill_organ("bone", np.minimum(np.minimum(arch, process), wings), box)


def draw_ribs(canvas: LabelCanvas, depth: np.ndarray) -> None:
  """Draws the lower ribs, at a depth in mm under the subcutaneous fat, [X, Y, Z]."""
  x, y, z = canvas.points
  shell = np.abs(depth - 5) - 3
  # Ribs run downwards from the spine to the front, so an axial slice meets each as a short oval.
  slanted = np.abs((z + 0.55 * y + 0.5 * np.abs(x) + 500) % 30 - 15) - 5
  cage = 0.9 * y - 35 - z  # ribs end at the costal margin, higher in front
  canvas.fill_organ("bone", np.maximum(np.maximum(shell, slanted), cage))


def draw_muscles(canvas: LabelCanvas, depth: np.ndarray) -> None:
  """Draws the wall and the muscles beside the spine, at a depth in mm under the fat, [X, Y, Z]."""
  x, y, z = canvas.points
  canvas.fill_organ("muscle", np.maximum(-depth, depth - 9))
  back = (np.sqrt(((np.abs(x) - 32) / 27) ** 2 + ((y + 42) / 20) ** 2) - 1) * 20
  canvas.fill_organ("muscle", np.maximum(back, -depth))
  # The psoas begins beside the upper lumbar spine and grows on its way down and outwards.
  grown = np.clip((40 - z) / 90, 0.2, 1.4)
  psoas = (np.sqrt(((np.abs(x) - 33 - 5 * grown) / 14) ** 2 + ((y + 4) / 17) ** 2) - grown) * 15
  canvas.fill_organ("muscle", np.maximum(psoas, z - 35))


def draw_lungs(canvas: LabelCanvas, height: np.ndarray, depth: np.ndarray) -> None:
  """Draws the bases of the lungs, and below them the diaphragm.

  Args:
    canvas: where to draw.
    height: of the diaphragm above each voxel in mm, [X, Y, Z]; negative in the lungs.
    depth: under the subcutaneous fat in mm, [X, Y, Z].
  """
  x, _, _ = canvas.points
  # Not within 14 mm of the wall, nor 28 mm of the midline, where the mediastinum is.
  canvas.fill_organ("lung", np.maximum(np.maximum(height, 14 - depth), 28 - np.abs(x)))
  canvas.fill_organ("muscle", np.maximum(np.abs(height - 2) - 2, 12 - depth))
