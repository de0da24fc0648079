"""Where the patient's frame lies in a label map of organs, and the trunk that holds them.

The spine is not in such a map. It is found from what stands in a fixed relation to it, with the
distances seen on the 3 mm scan that TotalSegmentator carries as a test file (whose map has
vertebrae): midway between the outer faces of liver and spleen; 3 mm in front of a kidney's middle,
48 mm in front of the spleen's and liver's back, 45 mm behind the back of what crosses the midline
at the pancreas's height. On other maps these differ by up to 3 cm; their mean is taken.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.organs import ALL_ORGANS

VISCERA = ("liver", "spleen", "stomach", "kidney_left", "kidney_right", "pancreas", "duodenum",
           "gallbladder")  # fmt: skip
_WALL = 11.0  # mm from an organ to the subcutaneous fat
_SPINE_FRONT = 26.0  # mm from a vertebra's centre to the organs before it, at least
_BACK = np.array([(0.0, -64.0), (48.0, -58.0), (-48.0, -58.0)])  # mm, the muscles of the back
_DIRECTIONS = 36
_ROUND = 6.0  # mm

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class PatientFrame:
  """The patient's frame on a grid.

  Attributes:
    origin: centre of the first lumbar vertebra in mm, where a voxel lies at index * spacing.
    scale: size relative to the average adult.
  """

  origin: np.ndarray
  scale: float


def fit_frame(labels: np.ndarray, spacing: Spacing) -> PatientFrame:
  """Finds the frame from the organs of a map on canonical axes.

  Args:
    labels: uint8 [X, Y, Z] with values of ALL_ORGANS; the pancreas is among them.
    spacing: millimetres between voxels.
  """
  places = {name: _find_organ_places(labels, name, spacing) for name in VISCERA}
  places = {name: found for name, found in places.items() if len(found)}
  pancreas = places["pancreas"].mean(0)
  # Left and right. Quantiles instead of extremes, here and below: a stray voxel must not move the
  # spine.
  both = {"liver", "spleen"} <= places.keys()
  outer = np.concatenate([places["liver"], places["spleen"]]) if both else pancreas[None]
  low, high = np.quantile(outer[:, 0], (0.001, 0.999)) if both else pancreas[0] + (-105, 145)
  middle = np.concatenate(list(places.values()))
  middle = middle[np.abs(middle[:, 0] - (low + high) / 2) < 15]
  # Front and back: the mean of whatever the map has to tell it by, see the module.
  kidneys = [places[name].mean(0) for name in ("kidney_left", "kidney_right") if name in places]
  depth = [kidney[1] + 3 for kidney in kidneys[:1]]
  depth += [np.quantile(outer[:, 1], 0.01) + 48] if both else []
  level = middle[np.abs(middle[:, 2] - pancreas[2]) < 30]
  depth += [np.quantile(level[:, 1], 0.02) - 45] if len(level) else [pancreas[1] - 55]
  height = np.mean([pancreas[2] + 5, *(kidney[2] + 22 for kidney in kidneys)])
  front = np.mean(depth)
  if len(middle):
    # No vertebra may reach into an organ that crosses the midline.
    clear = middle[:, 1] - _measure_lordosis(middle[:, 2] - height)
    # What crosses far behind the others (a lobe of the liver) is not before the spine.
    front = np.clip(np.quantile(clear, 0.01) - _SPINE_FRONT, front - 15, front)
  # The width from liver to spleen, 250 mm on average, varies more than a patient's size does.
  scale = np.clip(1 + 0.35 * ((high - low) / 250 - 1), 0.9, 1.12)
  return PatientFrame(np.array([(low + high) / 2, front, height]), float(scale))


def map_to_frame(
  rng: np.random.Generator, frame: PatientFrame, shape: tuple[int, ...], spacing: Spacing
) -> np.ndarray:
  """Returns every voxel's place in the patient's frame, bent along the spine and a bit at random.

  Returns:
    float32 [3, X, Y, Z] in mm.
  """
  axes = [np.arange(n) * step - o for n, step, o in zip(shape, spacing, frame.origin, strict=True)]
  points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
  # What is drawn has a straight spine: seen from a straight frame, it follows the patient's curve.
  points[1] -= _measure_lordosis(points[2])
  points /= frame.scale
  for axis in range(3):
    points[axis] += 2.5 * draw_smooth_noise(rng, shape, spacing, 60.0)
  return points


def fit_trunk_depth(points: np.ndarray, organs: np.ndarray, skin_fat: float) -> np.ndarray:
  """Measures the depth under the skin (mm, about) of a rounded cylinder that holds the organs.

  Args:
    points: float32 [3, X, Y, Z] in the patient's frame.
    organs: bool [X, Y, Z].
    skin_fat: mm of fat between the skin and the wall.

  Returns:
    float32 [X, Y, Z], negative outside the patient.
  """
  angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
  normals = np.stack([np.cos(angles), np.sin(angles)], -1)
  held = np.concatenate([points[:2][:, organs].T, _BACK])
  reach = np.array([np.quantile(held @ normal, 0.9995) for normal in normals])
  # A trunk is nearly symmetric, also where the map has no organ on one side.
  mirrored = reach[(_DIRECTIONS // 2 - np.arange(_DIRECTIONS)) % _DIRECTIONS]
  reach = np.maximum(reach, 0.95 * mirrored)
  reach = np.maximum(reach, gaussian_filter1d(reach, 1.5, mode="wrap"))
  # The half-planes of all directions, joined by a smooth maximum: corners come out round.
  total = np.zeros(points.shape[1:], np.float32)
  for (across, along), distance in zip(normals, reach, strict=True):
    total += np.exp((across * points[0] + along * points[1] - distance) / _ROUND)
  depth: np.ndarray = np.float32(_WALL + 0.6 * _ROUND + skin_fat) - np.float32(_ROUND) * np.log(
    total
  )
  return depth


def _find_organ_places(labels: np.ndarray, organ: str, spacing: Spacing) -> np.ndarray:
  """Returns the places of an organ's voxels in mm, [M, 3]."""
  return np.argwhere(labels == ALL_ORGANS[organ]) * spacing


def _measure_lordosis(height: np.ndarray) -> np.ndarray:
  """Measures how far in front of the first lumbar vertebra the spine runs at a height, in mm."""
  forward: np.ndarray = -0.22 * (np.hypot(height + 40, 40) - 40 * np.sqrt(2))
  return forward
