"""What differs from one patient to the next: size, place in the scanner, build and pancreas."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.trunk import TrunkSize

# Courses of the pancreas from head to tail (the five types radiology texts tell apart).
# Points are the head, the neck, the body twice and the tail.
COURSES: dict[str, np.ndarray] = {
  "oblique": np.array([(32, 42, -32), (10, 57, -10), (-22, 53, 4), (-52, 35, 15), (-84, 8, 26)]),
  "straight": np.array([(32, 42, -20), (10, 57, -6), (-24, 53, -1), (-55, 35, 1), (-88, 6, 3)]),
  "l_shaped": np.array([(32, 42, -44), (14, 55, -20), (-18, 54, -7), (-52, 36, -5), (-86, 8, -4)]),
  "inverted_v": np.array([(32, 42, -32), (10, 57, -4), (-16, 55, 18), (-50, 34, 9), (-84, 8, -12)]),
  "horseshoe": np.array([(32, 42, -34), (10, 57, -8), (-22, 53, 17), (-56, 32, 8), (-78, 6, -22)]),
}


@dataclass(frozen=True)
class PhantomPatient(TrunkSize):
  """A patient who does not exist. Lengths in mm, angles in radians, volumes in ml."""

  scale: np.ndarray  # [3], size relative to the average adult, per axis
  tilt: np.ndarray  # [3], rotation in the scanner about x, y and z
  place: np.ndarray  # [3], the frame's origin relative to the field of view's centre
  pancreas_volume: float
  pancreas_course: np.ndarray  # [5, 3], head to tail


def draw_patient(rng: np.random.Generator) -> PhantomPatient:
  """Draws one patient; sds of size and place are those of adults of both sexes."""
  fat = float(rng.uniform(5, 24))
  return PhantomPatient(
    # One factor for the whole body, and a smaller one of each axis.
    scale=np.clip(rng.normal(1, 0.05) + rng.normal(0, 0.03, 3), 0.85, 1.15),
    tilt=np.radians(rng.normal(0, (2, 2, 4))),
    # The spine lies behind the middle of the field of view. Clipped, so that no pancreas leaves it.
    place=np.array([0, -42, 6]) + rng.normal(0, 1, 3).clip(-2, 2) * (10, 13, 17),
    half_width=float(128 + 0.9 * fat + rng.normal(0, 5)),
    half_depth=float(86 + 0.9 * fat + rng.normal(0, 4)),
    skin_fat=fat,
    diaphragm=float(rng.normal(106, 7)),
    pancreas_volume=float(np.clip(rng.lognormal(np.log(82), 0.28), 46, 140)),
    pancreas_course=_draw_course(rng),
  )


def _draw_course(rng: np.random.Generator) -> np.ndarray:
  # Oblique is the most frequent course.
  course = COURSES[str(rng.choice(list(COURSES), p=(0.4, 0.2, 0.14, 0.14, 0.12)))]
  shift = rng.normal(0, (7, 5, 11))  # of the whole pancreas; below, of each point
  moved: np.ndarray = course + shift + rng.normal(0, (4, 3, 4), course.shape)
  return moved


def map_to_patient_frame(
  rng: np.random.Generator,
  patient: PhantomPatient,
  shape: tuple[int, int, int],
  spacing: tuple[float, float, float],
) -> np.ndarray:
  """Returns every voxel's place in the patient's frame.

  Place, tilt and size are undone in this order, and the result is bent smoothly.

  Args:
    rng: draws the bending by some mm.
    patient: whose frame it is.
    shape: voxels of the field of view, [X, Y, Z].
    spacing: millimetres between voxels.

  Returns:
    float32 [3, X, Y, Z] in mm.
  """
  axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
  world = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
  world -= patient.place.astype(np.float32)[:, None, None, None]
  turn = Rotation.from_euler("xyz", -patient.tilt).as_matrix() / patient.scale[:, None]
  points: np.ndarray = np.tensordot(turn.astype(np.float32), world, axes=1)
  # Without the bend every organ would be an exact ellipsoid or tube.
  for axis in range(3):
    points[axis] += 3.0 * draw_smooth_noise(rng, shape, spacing, 60.0)
  return points
