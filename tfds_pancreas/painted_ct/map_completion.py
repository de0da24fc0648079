"""Draws around the organs of a label map what the map lacks: trunk, spine, vessels, bowel."""

from collections.abc import Collection
from itertools import pairwise, product

import numpy as np
from scipy import ndimage

from tfds_pancreas.abdomen.bowel import draw_colon, draw_small_bowel
from tfds_pancreas.abdomen.canvas import LabelCanvas
from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.abdomen.trunk import (
  draw_body,
  draw_lungs,
  draw_muscles,
  draw_ribs,
  draw_spine,
)
from tfds_pancreas.abdomen.viscera import draw_kidneys, draw_vessels
from tfds_pancreas.painted_ct.patient_frame import (
  VISCERA,
  Spacing,
  fit_frame,
  fit_trunk_depth,
  map_to_frame,
)

_SKIN_FAT = (4.0, 32.0)  # mm
_DOME = 100.0  # mm, the diaphragm's height in the patient's frame where no organ tells
_UNDER_DIAPHRAGM = ("liver", "spleen", "stomach", "kidney_left", "kidney_right")


def complete_map(
  rng: np.random.Generator, organs: np.ndarray, spacing: Spacing, given: Collection[str]
) -> np.ndarray:
  """Completes a map of some organs to one of a whole abdomen.

  Args:
    rng: draws the patient's own variation.
    organs: uint8 [X, Y, Z] on canonical axes with values of ALL_ORGANS, the pancreas among them.
    spacing: millimetres between voxels.
    given: organs that the map names, in this field of view or not: nothing of their kind is drawn.

  Returns:
    uint8 [X, Y, Z]: `organs` where it is not 0.
  """
  points = map_to_frame(rng, fit_frame(organs, spacing), organs.shape, spacing)
  canvas = LabelCanvas(rng, points, spacing, organs)
  canvas.given |= frozenset(given)
  skin_fat = rng.uniform(*_SKIN_FAT)
  depth = fit_trunk_depth(points, organs > 0, skin_fat)
  _draw_trunk(canvas, depth, skin_fat)
  course = _find_pancreas_course(canvas)
  _keep_clear(rng, canvas)
  # Some collections outline the left kidney only. Mirrored, it is more real than a drawn one.
  if "kidney_right" not in canvas.given and "kidney_left" in canvas.given:
    _mirror_kidney(canvas)
  draw_kidneys(rng, canvas)
  # Vessels branch off each other: drawn ones would not meet a real aorta.
  if "aorta" not in canvas.given:
    draw_vessels(rng, canvas, course)
  draw_colon(rng, canvas)
  if "small_bowel" not in canvas.given:
    # Twice as many loops as in a phantom: a map of few organs leaves more room.
    draw_small_bowel(rng, canvas, course)
    draw_small_bowel(rng, canvas, course)
    _draw_mesentery(rng, canvas, course)
  return canvas.labels


def _draw_trunk(canvas: LabelCanvas, depth: np.ndarray, skin_fat: float) -> None:
  draw_body(canvas, depth)
  under = depth - skin_fat
  if "bone" not in canvas.given:
    draw_spine(canvas)
    draw_ribs(canvas, under)
  if "lung" not in canvas.given:
    height = _measure_diaphragm_height(canvas)
    _draw_heart(canvas, height)
    draw_lungs(canvas, height, under)
  if "muscle" not in canvas.given:
    draw_muscles(canvas, under)
  canvas.taken |= under < 0  # no organ lies in the subcutaneous fat


def _measure_diaphragm_height(canvas: LabelCanvas) -> np.ndarray:
  """Measures the diaphragm's height above each voxel in mm: it lies close on the organs below."""
  below = np.isin(canvas.labels, [ALL_ORGANS[name] for name in _UNDER_DIAPHRAGM])
  columns = np.asarray(below.any(2))
  if not columns.any():
    return np.asarray(_DOME - canvas.points[2])
  z = np.arange(below.shape[2]) * canvas.spacing[2]
  top = np.where(columns, (below * z).max(2), 0.0)
  # A column without an organ takes the height of the nearest one that has one.
  nearest = ndimage.distance_transform_edt(
    ~columns, canvas.spacing[:2], return_distances=False, return_indices=True
  )
  sigma = [9.0 / step for step in canvas.spacing[:2]]
  smooth = ndimage.gaussian_filter(top[tuple(nearest)], sigma)
  # The blur must not push the diaphragm into an organ, and the muscle is about 4 mm thick.
  surface = np.maximum(smooth, np.where(columns, top, 0)) + 4
  x, y, _ = canvas.points[:, :, :, below.shape[2] // 2]
  # Where no organ is near, a dome below the organs' highest points.
  dome = np.quantile(top[columns], 0.97) - 20 - 35 * ((np.abs(x) - 62) / 70) ** 2
  dome -= 40 * ((y - 35) / 90) ** 2
  height: np.ndarray = np.maximum(surface, dome)[:, :, None] - z
  return height


def _draw_heart(canvas: LabelCanvas, height: np.ndarray) -> None:
  # It rests on the diaphragm a little left of the midline.
  top = canvas.points[2] + height
  middle = float(np.median(top[np.hypot(canvas.points[0] + 15, canvas.points[1] - 60) < 20]))
  distance = canvas.distance_to_ellipsoid((-15, 60, middle + 38), (58, 48, 44))
  canvas.fill_organ("heart", distance, gap=1)


def _find_pancreas_course(canvas: LabelCanvas) -> np.ndarray:
  """Returns the pancreas from head to tail, in mm of the patient's frame: [5, 3]."""
  places = canvas.points[:, canvas.labels == ALL_ORGANS["pancreas"]].T
  # Five parts from right to left. The head has 30 % of the voxels.
  ends = np.quantile(places[:, 0], (1, 0.7, 0.5, 0.3, 0.12, 0))
  parts = [places[(places[:, 0] <= high) & (places[:, 0] >= low)] for high, low in pairwise(ends)]
  return np.array([part.mean(0) for part in parts])


def _keep_clear(rng: np.random.Generator, canvas: LabelCanvas) -> None:
  """Keeps fat around the viscera and, of varying thickness or none, around the pancreas."""
  viscera = np.isin(canvas.labels, [ALL_ORGANS[name] for name in VISCERA])
  canvas.taken |= ndimage.distance_transform_edt(~viscera, canvas.spacing) < 1.2
  pancreas = canvas.labels == ALL_ORGANS["pancreas"]
  plane = 1.5 + 2.0 * draw_smooth_noise(rng, canvas.shape, canvas.spacing, 18.0)
  canvas.taken |= ndimage.distance_transform_edt(~pancreas, canvas.spacing) < plane


def _draw_mesentery(rng: np.random.Generator, canvas: LabelCanvas, course: np.ndarray) -> None:
  """Draws small vessels in the fat before the spine, that fan out from the pancreas's neck."""
  root = course[1] + (0, -4, -8)
  for _ in range(int(rng.integers(8, 20))):
    end = rng.uniform((-95, 20, -150), (95, 105, 50))
    middle = (root + end) / 2 + rng.normal(0, 12, 3)
    # Half of them as bright as veins, half as bright as arteries.
    organ = "vena_cava" if rng.random() < 0.5 else "mesenteric_artery"
    tube = canvas.distance_to_tube(np.array([root, middle, end]), rng.uniform(1.2, 2.4))
    canvas.fill_organ(organ, *tube)


def _mirror_kidney(canvas: LabelCanvas) -> None:
  """Draws the left kidney on the right, a little lower, where it meets the fewest organs."""
  left = np.argwhere(canvas.labels == ALL_ORGANS["kidney_left"])
  if not len(left):  # beyond this field of view, as the tip that a slab of few slices had of it
    return
  _, level, height = left.mean(0).astype(int)
  middle = np.abs(canvas.points[0][:, level, height]).argmin()
  mirrored = left * (-1, 1, 1) + (2 * middle, 0, 0)
  free = canvas.find_free_voxels()
  tries = []
  for aside, back, down in product((-6, 0, 8), (-8, 0, 6), range(0, 56, 7)):
    moved = np.rint(mirrored + np.array((aside, back, -down)) / canvas.spacing).astype(int)
    moved = moved[((moved >= 0) & (moved < canvas.shape)).all(1)]
    share = free[tuple(moved.T)].sum() / len(left)
    # The right kidney usually lies some 14 mm lower: the liver is above it.
    tries.append((share - 0.004 * abs(down - 14), aside, back, down, moved))
  *_, best = max(tries, key=lambda item: item[:4])
  mask = np.zeros(canvas.shape, bool)
  mask[tuple(best.T)] = True
  inside = ndimage.distance_transform_edt(~mask, canvas.spacing)
  canvas.fill_organ("kidney_right", inside - 0.5, gap=2)
