"""A label map being drawn: its voxels in the patient's frame, and the shapes one draws with."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from attn_unet_jax.volumes.box import Slices
from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.organs import ALL_ORGANS

WHOLE: Slices = (slice(None), slice(None), slice(None))
FAR_MM = 99.0  # a distance beyond any that matters


class LabelCanvas:
  """A label map [X, Y, Z] that fills up, organ by organ.

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
      rng: draws the roughness.
      points: float32 [3, X, Y, Z], see the class.
      spacing: millimetres between voxels.
      labels: uint8 [X, Y, Z] with values of ALL_ORGANS; copied. Its organs are never drawn again.
    """
    self.shape: tuple[int, int, int] = points.shape[1:]
    self.spacing = spacing
    self.labels = np.zeros(self.shape, np.uint8) if labels is None else labels.copy()
    self.given = frozenset(
      name for name, value in ALL_ORGANS.items() if (self.labels == value).any()
    )
    self.given -= {"background"}  # room to draw in, not an organ
    self.taken = np.zeros(self.shape, bool)
    self.points = points
    self.roughness = draw_smooth_noise(rng, self.shape, spacing, 11.0)
    # The frame may be turned and bent against the grid. The range of x, y and z in each slice is
    # enough to find the box of an organ without looking at every voxel again.
    others = ((1, 2), (0, 2), (0, 1))
    self._extent = [
      (points.min(axes), points.max(axes)) for points, axes in zip(self.points, others, strict=True)
    ]

  def fill_organ(
    self,
    organ: str,
    distance: np.ndarray,
    box: Slices = WHOLE,
    over: str = "fat",
    gap: float | np.ndarray = -np.inf,
  ) -> None:
    """Writes `organ` where `distance` is negative and `over` is; first come, first served.

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

  def find_free_voxels(self, box: Slices = WHOLE) -> np.ndarray:
    """Returns where an organ can still be drawn: fat that no organ keeps around itself, bool."""
    free: np.ndarray = (self.labels[box] == ALL_ORGANS["fat"]) & ~self.taken[box]
    return free

  def find_box(self, low: ArrayLike, high: ArrayLike) -> Slices:
    """Returns the voxels that may lie between two corners (mm) of the patient's frame."""
    found = [
      np.flatnonzero((least <= top) & (most >= bottom))
      for (least, most), bottom, top in zip(
        self._extent, np.asarray(low), np.asarray(high), strict=True
      )
    ]
    x, y, z = (slice(f[0], f[-1] + 1) if len(f) else slice(0, 0) for f in found)
    return x, y, z

  def distance_to_ellipsoid(
    self, centre: ArrayLike, radii: ArrayLike, box: Slices = WHOLE
  ) -> np.ndarray:
    """Returns the signed distance of the box's voxels to an ellipsoid: mm, negative inside.

    It is exact for a sphere. Elsewhere it is right at the surface and along the shortest axis.
    """
    middle, size = (np.asarray(v, np.float32)[:, None, None, None] for v in (centre, radii))
    scaled = (self.points[(slice(None), *box)] - middle) / size
    distance: np.ndarray = (np.sqrt((scaled**2).sum(0)) - 1) * size.min()
    return distance

  def distance_to_tube(
    self,
    course: np.ndarray,
    radii: ArrayLike,
    stretch: float = 1.0,
    ripple: float = 0.0,
  ) -> tuple[np.ndarray, Slices]:
    """Measures the signed distance to a tube along a smooth course.

    Args:
      course: [K, 3] points in mm that the centre line goes through.
      radii: one radius, or K of them, in mm.
      stretch: height over depth of the cross-section.
      ripple: amplitude in mm of rings along the tube (the haustra of a colon).

    Returns:
      the distance in mm, negative inside and FAR_MM where no organ can be drawn any more, and the
      box of voxels that it covers.
    """
    line, radius = _trace_centre_line(course, radii, ripple)
    # On a coarse grid a thin vessel would fall between the voxels.
    radius = np.maximum(radius, 0.55 * max(self.spacing))
    # 8 mm beyond the surface: callers need the distance as far as gaps and roughness reach.
    reach = radius.max() * max(stretch, 1) + 8
    box = self.find_box(line.min(0) - reach, line.max(0) + reach)
    squeeze = np.array((1, 1, 1 / stretch))
    free = self.find_free_voxels(box)
    # Voxels of other organs are no candidates: leaving them out halves the time.
    points = self.points[(slice(None), *box)][:, free].T * squeeze
    found, nearest = cKDTree(line * squeeze).query(points, distance_upper_bound=radius.max() + 8)
    distance = np.full(free.shape, FAR_MM, np.float32)
    # Where nothing is in reach the tree gives an infinite distance and an index one past the last.
    distance[free] = np.minimum(found, FAR_MM) - np.append(radius, 0)[nearest]
    return distance, box


def _trace_centre_line(
  course: np.ndarray, radii: ArrayLike, ripple: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns points [M, 3] every 2 mm or so along a spline, and the radius [M] at each."""
  knots = np.arange(len(course))
  length = np.linalg.norm(np.diff(course, axis=0), axis=1).sum()
  steps = np.linspace(0, len(course) - 1, max(int(length / 2), 8))
  line = CubicSpline(knots, course)(steps)
  radius = np.interp(steps, knots, np.broadcast_to(np.asarray(radii, float), len(course)))
  travelled = np.linspace(0, length, len(steps))
  # A ring every 32 mm of the tube.
  return line, radius + ripple * np.sin(travelled * (2 * np.pi / 32))
