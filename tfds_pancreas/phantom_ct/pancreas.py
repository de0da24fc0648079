"""The pancreas: a lobulated, tapering tube from the duodenum's loop to the hilum of the spleen."""

import numpy as np
from scipy import ndimage

from tfds_pancreas.abdomen.canvas import FAR, Canvas
from tfds_pancreas.abdomen.noise import smooth_noise
from tfds_pancreas.phantom_ct.patient import Patient

RADII = np.array((15.0, 9.5, 10.5, 10.5, 8.5))  # mm: head, neck, body, body, tail


def draw_pancreas(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
  """Draws one connected pancreas of the patient's volume, with a plane of fat around most of it."""
  distance = _distance(rng, canvas, patient)
  free = canvas.free()
  voxels = round(patient.pancreas_volume * 1000 / float(np.prod(canvas.spacing)))
  distance = distance - _level(distance, free, voxels)
  # The plane of fat is 1 to 4 mm thick: at some places the pancreas touches its neighbours.
  plane = 2.2 + 1.5 * smooth_noise(rng, canvas.shape, canvas.spacing, 18.0)
  canvas.fill("pancreas", np.where(_largest((distance < 0) & free), distance, 1.0))
  canvas.taken |= distance < plane


def _distance(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> np.ndarray:
  """Distance in mm to the surface of a pancreas of average calibre, [X, Y, Z]."""
  course = patient.pancreas_course
  radii = RADII * rng.normal(1, 0.1, 5)
  head = course[0]
  uncinate = np.array([head + (0, 0, -2), head + (-4, -3, -13), head + (-15, -4, -16)])
  result = np.full(canvas.shape, FAR, np.float32)
  for points, radius in ((course, radii), (uncinate, (radii[0], 0.7 * radii[0], 7.0))):
    distance, box = canvas.tube(points, radius, stretch=1.25)
    result[box] = np.minimum(result[box], distance)
  lobules = smooth_noise(rng, canvas.shape, canvas.spacing, 6.0)
  return result + 0.9 * lobules + 0.9 * canvas.roughness


def _level(distance: np.ndarray, free: np.ndarray, voxels: int) -> float:
  """The level of `distance` under which `voxels` free voxels lie."""
  candidates = distance[free]
  return float(np.partition(candidates, voxels)[voxels])


def _largest(mask: np.ndarray) -> np.ndarray:
  parts, count = ndimage.label(mask)
  if count < 2:
    return mask
  return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
