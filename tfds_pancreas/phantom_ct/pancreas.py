"""The pancreas: a lobulated, tapering tube from the duodenum's loop to the hilum of the spleen."""

import numpy as np

from attn_unet_jax.volumes.components import largest_component
from tfds_pancreas.abdomen.canvas import FAR_MM, LabelCanvas
from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.phantom_ct.patient import PhantomPatient

RADII = np.array((15.0, 9.5, 10.5, 10.5, 8.5))  # mm: head, neck, body, body, tail


def draw_pancreas(rng: np.random.Generator, canvas: LabelCanvas, patient: PhantomPatient) -> None:
  """Draws one connected pancreas of the patient's volume, with fat around most of it."""
  distance = _measure_distance(rng, canvas, patient)
  free = canvas.find_free_voxels()
  voxels = round(patient.pancreas_volume * 1000 / float(np.prod(canvas.spacing)))
  # The surface is moved in or out until the volume is right, whatever vessels take of it.
  distance = distance - _find_level(distance, free, voxels)
  # The plane of fat is 1 to 4 mm thick: at some places the pancreas touches its neighbours.
  plane = 2.2 + 1.5 * draw_smooth_noise(rng, canvas.shape, canvas.spacing, 18.0)
  # Loose lobules, and what a vessel cuts off, are dropped: a pancreas is in one piece.
  inside = largest_component((distance < 0) & free)
  canvas.fill_organ("pancreas", np.where(inside, distance, 1.0))
  canvas.taken |= distance < plane


def _measure_distance(
  rng: np.random.Generator, canvas: LabelCanvas, patient: PhantomPatient
) -> np.ndarray:
  """Measures the distance in mm to a pancreas of average calibre, [X, Y, Z]."""
  course = patient.pancreas_course
  radii = RADII * rng.normal(1, 0.1, 5)
  head = course[0]
  # The uncinate process: a hook from the head to the left, behind the mesenteric vessels.
  uncinate = np.array([head + (0, 0, -2), head + (-4, -3, -13), head + (-15, -4, -16)])
  result = np.full(canvas.shape, FAR_MM, np.float32)
  for points, radius in ((course, radii), (uncinate, (radii[0], 0.7 * radii[0], 7.0))):
    distance, box = canvas.distance_to_tube(points, radius, stretch=1.25)
    result[box] = np.minimum(result[box], distance)
  # Two scales of unevenness: lobules of 6 mm, and the roughness that other organs have as well.
  lobules = draw_smooth_noise(rng, canvas.shape, canvas.spacing, 6.0)
  return result + 0.9 * lobules + 0.9 * canvas.roughness


def _find_level(distance: np.ndarray, free: np.ndarray, voxels: int) -> float:
  """Returns the level of `distance` under which `voxels` free voxels lie."""
  candidates = distance[free]
  return float(np.partition(candidates, voxels)[voxels])
