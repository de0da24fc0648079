"""The trunk: skin, fat, muscles, spine, ribs and the bases of the lungs."""

from dataclasses import dataclass

import numpy as np

from tfds_pancreas.abdomen.canvas import Canvas

BACK = 62.0  # mm from the centre of a vertebra to the skin of the back, before fat


@dataclass(frozen=True)
class Build:
  """The size of a trunk, in mm."""

  half_width: float  # skin to skin
  half_depth: float
  skin_fat: float  # thickness of the subcutaneous fat
  diaphragm: float  # height of the domes


def draw_trunk(canvas: Canvas, build: Build) -> None:
  """Draws everything that holds the organs; what is left inside is fat."""
  depth = trunk_depth(canvas, build)
  draw_body(canvas, depth)
  draw_spine(canvas)
  draw_ribs(canvas, depth - build.skin_fat)
  draw_muscles(canvas, depth - build.skin_fat)
  draw_lungs(canvas, dome(canvas, build), depth - build.skin_fat)
  canvas.taken |= depth < build.skin_fat


def draw_body(canvas: Canvas, depth: np.ndarray) -> None:
  """Skin, and inside it fat.

  Args:
    canvas: where to draw.
    depth: under the skin in mm, [X, Y, Z]; negative outside the patient.
  """
  canvas.fill("skin", -depth, over="background")
  skin = max(2.0, 0.3 * max(canvas.spacing))
  canvas.fill("fat", skin - depth, over="skin")


def trunk_depth(canvas: Canvas, build: Build) -> np.ndarray:
  """Depth under the skin in mm (about), [X, Y, Z]; negative outside the build."""
  x, y, _ = canvas.points
  middle = build.half_depth - BACK - 0.5 * build.skin_fat
  across = np.abs(x / build.half_width) ** 2.3
  along = np.abs((y - middle) / build.half_depth) ** 2.3
  return (1 - (across + along) ** (1 / 2.3)) * build.half_depth


def dome(canvas: Canvas, build: Build) -> np.ndarray:
  """Height in mm of the diaphragm above each voxel (negative in the lungs), [X, Y, Z]."""
  x, y, z = canvas.points
  side = (np.abs(x) - 62) / 70
  top = build.diaphragm - 5 * (x < 0)
  return top - 45 * side**2 - 55 * ((y - 35) / 90) ** 2 - z


def draw_spine(canvas: Canvas) -> None:
  """Vertebrae, the discs between them and the canal."""
  box = canvas.box((-45, -75, -300), (45, 30, 300))
  x, y, z = canvas.points[(slice(None), *box)]
  level = np.abs((z + 500) % 35 - 17.5)  # mm from the middle of a disc
  body = (np.sqrt((x / 23) ** 2 + (y / 17) ** 2) - 1) * 17
  canvas.fill("disc", np.maximum(body, level - 5), box)
  canvas.fill("bone", body, box)
  canal = np.hypot(x, y + 26) - 8
  arch = np.maximum(np.hypot(x, y + 26) - 14, 8 - canal - 8)
  process = np.maximum(np.abs(x) - 4, np.maximum(np.abs(y + 48) - 16, 10 - level))
  wings = np.maximum(np.maximum(np.abs(y + 24) - 5, np.abs(x) - 38), 13 - level)
  canvas.fill("disc", canal, box)  # the cord in its canal looks like a disc
  canvas.fill("bone", np.minimum(np.minimum(arch, process), wings), box)


def draw_ribs(canvas: Canvas, depth: np.ndarray) -> None:
  """The lower ribs, at a depth in mm under the subcutaneous fat, [X, Y, Z]."""
  x, y, z = canvas.points
  shell = np.abs(depth - 5) - 3
  slanted = np.abs((z + 0.55 * y + 0.5 * np.abs(x) + 500) % 30 - 15) - 5
  cage = 0.9 * y - 35 - z  # ribs end at the costal margin, higher in front
  canvas.fill("bone", np.maximum(np.maximum(shell, slanted), cage))


def draw_muscles(canvas: Canvas, depth: np.ndarray) -> None:
  """The wall, the muscles beside the spine, at a depth in mm under the fat, [X, Y, Z]."""
  x, y, z = canvas.points
  canvas.fill("muscle", np.maximum(-depth, depth - 9))
  back = (np.sqrt(((np.abs(x) - 32) / 27) ** 2 + ((y + 42) / 20) ** 2) - 1) * 20
  canvas.fill("muscle", np.maximum(back, -depth))
  grown = np.clip((40 - z) / 90, 0.2, 1.4)
  psoas = (np.sqrt(((np.abs(x) - 33 - 5 * grown) / 14) ** 2 + ((y + 4) / 17) ** 2) - grown) * 15
  canvas.fill("muscle", np.maximum(psoas, z - 35))


def draw_lungs(canvas: Canvas, height: np.ndarray, depth: np.ndarray) -> None:
  """The bases of the lungs, and below them the diaphragm.

  Args:
    canvas: where to draw.
    height: of the diaphragm above each voxel in mm, [X, Y, Z]; negative in the lungs.
    depth: under the subcutaneous fat in mm, [X, Y, Z].
  """
  x, _, _ = canvas.points
  canvas.fill("lung", np.maximum(np.maximum(height, 14 - depth), 28 - np.abs(x)))
  canvas.fill("muscle", np.maximum(np.abs(height - 2) - 2, 12 - depth))
