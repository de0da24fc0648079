"""Vessels and solid organs."""

import numpy as np

from tfds_pancreas.abdomen.canvas import LabelCanvas
from tfds_pancreas.abdomen.trunk import TrunkSize, measure_diaphragm_height


def draw_vessels(rng: np.random.Generator, canvas: LabelCanvas, course: np.ndarray) -> None:
  """Draws the aorta, vena cava and mesenteric artery, and the portal and splenic veins.

  Args:
    rng: draws the patient's own variation.
    canvas: where to draw; the trunk is there already.
    course: [5, 3] the pancreas from head to tail, in mm: the splenic vein runs behind it.
  """
  # In front of the spine: the aorta a little to the left, the vena cava to the right.
  aorta = rng.normal((-11, 29), 2.5)
  column = np.array([(*aorta, z) for z in (-170, -90, -20, 50, 120)]) + rng.normal(0, 2, (5, 3))
  tube = canvas.distance_to_tube(column, rng.normal(9.5, 1))
  canvas.fill_organ("aorta", *tube, gap=1)
  cava = np.array([(18, 26, z) for z in (-170, -90, -20)] + [(24, 30, 40), (20, 42, 115)])
  tube = canvas.distance_to_tube(cava + rng.normal(0, 2, cava.shape), 10.5)
  canvas.fill_organ("vena_cava", *tube, gap=1)

  # The superior mesenteric artery leaves the aorta behind the neck and runs down in front of it.
  neck = course[1]
  root = np.array((*aorta, neck[2] + 6)) + (0, 8, 0)
  artery = np.array([root, root + (3, 9, -10), root + (5, 12, -40), root + (6, 20, -95)])
  canvas.fill_organ("mesenteric_artery", *canvas.distance_to_tube(artery, 3.8), gap=2)

  # The splenic vein follows the back of body and tail to the spleen. No gap: the pancreas is to
  # touch it.
  behind = course + np.array([(0, -16, 0), (0, -13, 0), (0, -13, 3), (0, -12, 3), (3, -8, 3)])
  splenic = np.vstack([behind[1:], behind[-1] + (-14, -6, 6)])
  tube = canvas.distance_to_tube(splenic, rng.normal(4.3, 0.4))
  canvas.fill_organ("portal_splenic_vein", *tube)

  # The mesenteric vein comes from below, meets it behind the neck, and as the portal vein they go
  # on to the liver.
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
  tube = canvas.distance_to_tube(portal, (5, 5.5, 6.5, 6, 5))
  canvas.fill_organ("portal_splenic_vein", *tube)


def draw_kidneys(rng: np.random.Generator, canvas: LabelCanvas) -> None:
  """Draws two kidneys, the right one lower, each with fat in its sinus."""
  for organ, side, height in (("kidney_right", 1, -32), ("kidney_left", -1, -16)):
    centre = np.array((side * 62, -2, height)) + rng.normal(0, (4, 4, 9))
    size = np.array((28, 27, 54)) * rng.normal(1, 0.06, 3)
    box = canvas.find_box(centre - size - 6, centre + size + 6)
    distance = canvas.distance_to_ellipsoid(centre, size, box)
    sinus = canvas.distance_to_ellipsoid(centre + (-side * 16, 8, 0), (15, 12, 24), box)
    canvas.fill_organ(organ, np.maximum(distance, -sinus), box, gap=2)


def draw_spleen(rng: np.random.Generator, canvas: LabelCanvas, size: TrunkSize) -> None:
  """Draws the spleen, hollowed towards the pancreas's tail, under the left dome."""
  centre = np.array((-88, -6, 46)) + rng.normal(0, (5, 8, 7))
  radii = np.array((43, 60, 60)) * rng.normal(1, 0.1, 3)
  box = canvas.find_box(centre - radii - 6, centre + radii + 6)
  distance = canvas.distance_to_ellipsoid(centre, radii, box)
  hilum = canvas.distance_to_ellipsoid(centre + (46, 34, -10), (36, 44, 62), box)
  under = 5 - measure_diaphragm_height(canvas, size)[box]  # it stays 5 mm below the diaphragm
  rough = 1.2 * canvas.roughness[box]
  surface = np.maximum(np.maximum(distance, -hilum), under) + rough
  canvas.fill_organ("spleen", surface, box, gap=1.5)


def draw_liver(rng: np.random.Generator, canvas: LabelCanvas, size: TrunkSize) -> None:
  """Draws the gallbladder, then both lobes of the liver, hollowed below by other organs."""
  shift = rng.normal((3, 2, -2), (5, 4, 5))
  # The gallbladder comes first: the liver then lies around it.
  bladder = np.array((58, 78, -22)) + shift + rng.normal(0, 4, 3)
  radii = np.array((13, 19, 15)) * rng.normal(1, 0.12, 3)
  canvas.fill_organ("gallbladder", canvas.distance_to_ellipsoid(bladder, radii), gap=1)
  scale = rng.normal(1, 0.08)
  radii = np.array((70, 90, 98)) * scale
  box = canvas.find_box(shift + (-80, -70, -80), shift + (160, 140, 140))
  right = canvas.distance_to_ellipsoid(shift + (82, 28, 30), radii, box)
  left = canvas.distance_to_ellipsoid(shift + (12, 78, 52), np.array((84, 50, 42)) * scale, box)
  # Kidney, duodenum and colon press into its lower face.
  hollow = canvas.distance_to_ellipsoid(shift + (24, 24, -46), (60, 60, 64), box)
  lobes = np.maximum(np.minimum(right, left), -hollow)
  under = 5 - measure_diaphragm_height(canvas, size)[box]
  liver = np.maximum(lobes, under) + 1.2 * canvas.roughness[box]
  canvas.fill_organ("liver", liver, box, gap=1.5)
