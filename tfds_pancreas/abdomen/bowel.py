"""Stomach, duodenum, colon and loops of small bowel."""

import numpy as np

from tfds_pancreas.abdomen.canvas import LabelCanvas


def draw_duodenum(rng: np.random.Generator, canvas: LabelCanvas, course: np.ndarray) -> None:
  """Draws the C-loop around the pancreas's head, from the pylorus to below the body.

  Args:
    rng: draws the patient's own variation.
    canvas: where to draw; vessels and pancreas are there already.
    course: [5, 3] the pancreas from head to tail, in mm.
  """
  # Relative to the head: the bulb in front of it, down on its right, then to the left below it.
  loop = course[0] + np.array(
    [
      (2, 24, 36),
      (16, 10, 30),
      (25, -3, 8),
      (22, -7, -24),
      (2, -6, -46),
      (-30, 0, -46),
      (-58, 8, -24),
    ]
  )
  wobble = rng.normal(0, 2.5, loop.shape)
  tube = canvas.distance_to_tube(loop + wobble, rng.normal(11.5, 1))
  canvas.fill_organ("duodenum", *tube, gap=1.2)


def draw_stomach(rng: np.random.Generator, canvas: LabelCanvas, course: np.ndarray) -> None:
  """Draws the stomach in front of the pancreas, from the left dome to the pylorus."""
  fundus = np.array([(-62, 12, 82), (-64, 48, 55), (-48, 82, 24), (-12, 98, 2)], float)
  fundus += rng.normal(0, (7, 6, 8)) + rng.normal(0, 4, fundus.shape)
  # It ends where the duodenum begins, wherever this patient's pancreas is.
  path = np.vstack([fundus, course[0] + (2, 26, 34)])
  radii = np.array((30, 29, 23, 17, 10)) * rng.normal(1, 0.12)
  canvas.fill_organ("stomach", *canvas.distance_to_tube(path, radii), gap=1.5)


def draw_colon(rng: np.random.Generator, canvas: LabelCanvas) -> None:
  """Draws the colon's frame: ascending, across in front, up to the spleen and down."""
  # The height of both flexures, and how far the part between them sags.
  low, sag = rng.normal(0, 12), rng.normal(0, 16)
  path = np.array(
    [
      (92, 28, -190), (96, 32, -110), (92, 48, -62), (62, 92, -52 + low), (2, 108, -72 + sag),
      (-62, 98, -38 + low), (-104, 46, 8), (-108, 4, -22), (-104, 2, -80), (-98, 8, -190),
    ]
  )  # fmt: skip
  path = path + rng.normal(0, 5, path.shape)
  canvas.fill_organ("colon", *canvas.distance_to_tube(path, rng.normal(18, 2), ripple=2.5), gap=1.2)


def draw_small_bowel(rng: np.random.Generator, canvas: LabelCanvas, course: np.ndarray) -> None:
  """Draws loops of small bowel: some against the pancreas, many in the space below it."""
  # A loop beside the pancreas has its calibre, length and direction. Only its place in the whole
  # tells it apart, so a network cannot find the pancreas by its shape alone.
  for _ in range(int(rng.integers(4, 7))):
    along = course[rng.integers(1, 4)]
    middle = along + rng.normal((-6, 12, -26), (16, 12, 12))
    _draw_loop(rng, canvas, middle, rng.normal((1, 0.1, 0.15), (0.2, 0.5, 0.5)))
  for _ in range(int(rng.integers(18, 26))):
    middle = rng.uniform((-80, 25, -180), (75, 95, -55))
    _draw_loop(rng, canvas, middle, rng.normal(0, 1, 3))


def _draw_loop(
  rng: np.random.Generator, canvas: LabelCanvas, middle: np.ndarray, direction: np.ndarray
) -> None:
  axis = direction / np.linalg.norm(direction)
  steps = np.linspace(-0.5, 0.5, 5)[:, None] * rng.uniform(60, 120)
  bend = np.linspace(-1, 1, 5)[:, None] ** 2 * rng.normal(0, 18, 3)  # both ends to one side
  path = middle + steps * axis + bend + rng.normal(0, 5, (5, 3))
  radii = rng.uniform(8.5, 13) * rng.normal(1, 0.1, 5)
  distance, box = canvas.distance_to_tube(path, radii)
  # Rough, so that no loop is a smooth tube.
  canvas.fill_organ("small_bowel", distance + 0.6 * canvas.roughness[box], box, gap=1.0)
