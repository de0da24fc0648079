"""A label map being drawn: its voxels in the patient's frame, and the shapes one draws with."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from tfds_pancreas.abdomen.noise import smooth_noise
from tfds_pancreas.abdomen.organs import ALL_ORGANS

Box = tuple[slice, slice, slice]
WHOLE: Box = (slice(None), slice(None), slice(None))
FAR = 99.0  # mm, a distance beyond any that matters


class Canvas:
  """Labels [X, Y, Z] that fill up, organ by organ.

  The patient's frame is in millimetres, RAS+ (x to the patient's right, y forward, z up), with its
  origin at the centre of the first lumbar vertebra of an adult of average size. All anatomy is
  written in that frame.

  Attributes:
    labels: uint8 [X, Y, Z], 'background' at first.
    points: float32 [3, X, Y, Z], every voxel's place in the patient's frame.
    given: organs that the map had from the start.
    taken: bool [X, Y, Z], voxels that no further organ may take.
    roughness: float32 [X, Y, Z], a field of unit variance that makes surfaces uneven.
  """

  def __init__(
    self,
    rng: np.random.Generator,
    points: np.ndarray,
    spacing: tuple[float, float, float],
    labels: np.ndarray | None = None,
  ):
    """Starts with an empty map, or with one that has some organs already.

    Args:
      rng: where the roughness comes from.
      points: float32 [3, X, Y, Z], see above.
      spacing: millimetres between voxels.
      labels: uint8 [X, Y, Z] with values of ALL_ORGANS; copied. Its organs are never drawn again.
    """
    self.shape, self.spacing = points.shape[1:], spacing
    self.labels = np.zeros(self.shape, np.uint8) if labels is None else labels.copy()
    self.given = frozenset(
      name for name, value in ALL_ORGANS.items() if (self.labels == value).any()
    )
    self.given -= {"background"}
    self.taken = np.zeros(self.shape, bool)
    self.points = points
    self.roughness = smooth_noise(rng, self.shape, spacing, 11.0)
    others = ((1, 2), (0, 2), (0, 1))
    self._extent = [
      (points.min(axes), points.max(axes)) for points, axes in zip(self.points, others, strict=True)
    ]

  def fill(
    self,
    organ: str,
    distance: np.ndarray,
    box: Box = WHOLE,
    over: str = "fat",
    gap: float | np.ndarray = -np.inf,
  ) -> None:
    """Writes `organ` where `distance` (mm) is negative and `over` is; first come, first served.

    An organ that the map had from the start is left as it is.

    Args:
      organ: a name of ALL_ORGANS.
      distance: signed distance in mm to the organ's surface, on the box.
      box: where `distance` lies on the canvas.
      over: what the organ may replace.
      gap: mm around the organ that no later organ may take, so that a plane of `over` is left.
    """
    if organ in self.given:
      return
    view, taken = self.labels[box], self.taken[box]
    view[(distance < 0) & (view == ALL_ORGANS[over]) & ~taken] = ALL_ORGANS[organ]
    taken |= distance < gap

  def free(self, box: Box = WHOLE) -> np.ndarray:
    """Where an organ can still be drawn: fat that no organ keeps around itself, bool."""
    return (self.labels[box] == ALL_ORGANS["fat"]) & ~self.taken[box]

  def box(self, low: ArrayLike, high: ArrayLike) -> Box:
    """The voxels that may lie between two corners (mm) of the patient's frame."""
    found = [
      np.flatnonzero((least <= top) & (most >= bottom))
      for (least, most), bottom, top in zip(
        self._extent, np.asarray(low), np.asarray(high), strict=True
      )
    ]
    x, y, z = (slice(f[0], f[-1] + 1) if len(f) else slice(0, 0) for f in found)
    return x, y, z

  def ellipsoid(self, centre: ArrayLike, radii: ArrayLike, box: Box = WHOLE) -> np.ndarray:
    """Signed distance (mm, approximate, negative inside) of the box's voxels to an ellipsoid."""
    place, size = (np.asarray(v, np.float32)[:, None, None, None] for v in (centre, radii))
    scaled = (self.points[(slice(None), *box)] - place) / size
    return (np.sqrt((scaled**2).sum(0)) - 1) * size.min()

  def tube(
    self,
    course: np.ndarray,
    radii: ArrayLike,
    stretch: float = 1.0,
    ripple: float = 0.0,
  ) -> tuple[np.ndarray, Box]:
    """Signed distance (mm, negative inside) to a tube along a smooth course, and its box.

    It is FAR where no organ can be drawn any more.

    Args:
      course: [K, 3] points in mm that the centre line goes through.
      radii: one radius, or K of them, in mm.
      stretch: height over depth of the cross-section.
      ripple: amplitude in mm of rings along the tube (the haustra of a colon).
    """
    line, radius = _centre_line(course, radii, ripple)
    # On a coarse grid a thin vessel would fall between the voxels.
    radius = np.maximum(radius, 0.55 * max(self.spacing))
    reach = radius.max() * max(stretch, 1) + 8
    box = self.box(line.min(0) - reach, line.max(0) + reach)
    squeeze = np.array((1, 1, 1 / stretch))
    free = self.free(box)
    # Voxels of other organs are no candidates: leaving them out halves the time.
    points = self.points[(slice(None), *box)][:, free].T * squeeze
    found, nearest = cKDTree(line * squeeze).query(points, distance_upper_bound=radius.max() + 8)
    distance = np.full(free.shape, FAR, np.float32)
    distance[free] = np.minimum(found, FAR) - np.append(radius, 0)[nearest]
    return distance, box


def _centre_line(
  course: np.ndarray, radii: ArrayLike, ripple: float
) -> tuple[np.ndarray, np.ndarray]:
  """Points [M, 3] every 2 mm or so along a spline, and the radius [M] at each."""
  knots = np.arange(len(course))
  length = np.linalg.norm(np.diff(course, axis=0), axis=1).sum()
  steps = np.linspace(0, len(course) - 1, max(int(length / 2), 8))
  line = CubicSpline(knots, course)(steps)
  radius = np.interp(steps, knots, np.broadcast_to(np.asarray(radii, float), len(course)))
  travelled = np.linspace(0, length, len(steps))
  return line, radius + ripple * np.sin(travelled * (2 * np.pi / 32))
