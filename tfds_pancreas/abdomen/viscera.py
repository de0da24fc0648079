"""Vessels and solid organs."""

import numpy as np

from tfds_pancreas.abdomen.canvas import Canvas
from tfds_pancreas.abdomen.trunk import Build, dome


def draw_vessels(rng: np.random.Generator, canvas: Canvas, course: np.ndarray) -> None:
  """Aorta, vena cava, mesenteric artery, and the portal and splenic veins behind the pancreas.

  Args:
    rng: the patient's own variation.
    canvas: where to draw; the trunk is there already.
    course: [5, 3] the pancreas from head to tail, in mm: the splenic vein runs behind it.
  """
  aorta = rng.normal((-11, 29), 2.5)
  column = np.array([(*aorta, z) for z in (-170, -90, -20, 50, 120)]) + rng.normal(0, 2, (5, 3))
  canvas.fill("aorta", *canvas.tube(column, rng.normal(9.5, 1)), gap=1)
  cava = np.array([(18, 26, z) for z in (-170, -90, -20)] + [(24, 30, 40), (20, 42, 115)])
  canvas.fill("vena_cava", *canvas.tube(cava + rng.normal(0, 2, cava.shape), 10.5), gap=1)
  neck = course[1]
  root = np.array((*aorta, neck[2] + 6)) + (0, 8, 0)
  artery = np.array([root, root + (3, 9, -10), root + (5, 12, -40), root + (6, 20, -95)])
  canvas.fill("mesenteric_artery", *canvas.tube(artery, 3.8), gap=2)
  behind = course + np.array([(0, -16, 0), (0, -13, 0), (0, -13, 3), (0, -12, 3), (3, -8, 3)])
  splenic = np.vstack([behind[1:], behind[-1] + (-14, -6, 6)])
  canvas.fill("portal_splenic_vein", *canvas.tube(splenic, rng.normal(4.3, 0.4)))
  junction = behind[1]
  portal = np.array(
    [
      junction + (-3, 14, -85),
      junction + (0, 8, -40),
      junction,
      junction + (22, 3, 26),
      (52, 48, 40),
    ]
  )
  canvas.fill("portal_splenic_vein", *canvas.tube(portal, (5, 5.5, 6.5, 6, 5)))


def draw_kidneys(rng: np.random.Generator, canvas: Canvas) -> None:
  """Two kidneys, the right one lower, each with fat in its sinus."""
  for organ, side, height in (("kidney_right", 1, -32), ("kidney_left", -1, -16)):
    centre = np.array((side * 62, -2, height)) + rng.normal(0, (4, 4, 9))
    size = np.array((28, 27, 54)) * rng.normal(1, 0.06, 3)
    box = canvas.box(centre - size - 6, centre + size + 6)
    distance = canvas.ellipsoid(centre, size, box)
    sinus = canvas.ellipsoid(centre + (-side * 16, 8, 0), (15, 12, 24), box)
    canvas.fill(organ, np.maximum(distance, -sinus), box, gap=2)


def draw_spleen(rng: np.random.Generator, canvas: Canvas, build: Build) -> None:
  """The spleen, hollowed towards the pancreas's tail, under the left dome."""
  centre = np.array((-88, -6, 46)) + rng.normal(0, (5, 8, 7))
  size = np.array((43, 60, 60)) * rng.normal(1, 0.1, 3)
  box = canvas.box(centre - size - 6, centre + size + 6)
  distance = canvas.ellipsoid(centre, size, box)
  hilum = canvas.ellipsoid(centre + (46, 34, -10), (36, 44, 62), box)
  under = 5 - dome(canvas, build)[box]
  rough = 1.2 * canvas.roughness[box]
  canvas.fill("spleen", np.maximum(np.maximum(distance, -hilum), under) + rough, box, gap=1.5)


def draw_liver(rng: np.random.Generator, canvas: Canvas, build: Build) -> None:
  """Gallbladder, then both lobes of the liver, hollowed below by kidney, duodenum and colon."""
  shift = rng.normal((3, 2, -2), (5, 4, 5))
  bladder = np.array((58, 78, -22)) + shift + rng.normal(0, 4, 3)
  size = np.array((13, 19, 15)) * rng.normal(1, 0.12, 3)
  canvas.fill("gallbladder", canvas.ellipsoid(bladder, size), gap=1)
  scale = rng.normal(1, 0.08)
  size = np.array((70, 90, 98)) * scale
  box = canvas.box(shift + (-80, -70, -80), shift + (160, 140, 140))
  right = canvas.ellipsoid(shift + (82, 28, 30), size, box)
  left = canvas.ellipsoid(shift + (12, 78, 52), np.array((84, 50, 42)) * scale, box)
  hollow = canvas.ellipsoid(shift + (24, 24, -46), (60, 60, 64), box)
  lobes = np.maximum(np.minimum(right, left), -hollow)
  under = 5 - dome(canvas, build)[box]
  liver = np.maximum(lobes, under) + 1.2 * canvas.roughness[box]
  canvas.fill("liver", liver, box, gap=1.5)
