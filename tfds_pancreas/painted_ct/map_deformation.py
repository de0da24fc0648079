"""A small smooth deformation of a label map, and the field of view it is scanned in."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from attn_unet_jax.volumes.resample import resample_volume
from attn_unet_jax.volumes.volume import Grid, Volume
from tfds_pancreas.abdomen.noise import draw_smooth_noise

_BEND_LENGTH = 50.0  # mm, of the smooth part


@dataclass(frozen=True)
class DeformationSpread:
  """The spread of paintings' anatomies about their map's; zeros leave it as it is.

  Attributes:
    turn_deg: sd of the rotation about each axis.
    stretch: sd of the factor along each axis.
    bend_mm: sd of the smooth displacement along each axis.
  """

  turn_deg: float = 3.0
  stretch: float = 0.06
  bend_mm: float = 3.5


def draw_source_indices(
  rng: np.random.Generator, spread: DeformationSpread, source: Grid, view: Grid, centre: np.ndarray
) -> np.ndarray:
  """Draws a deformation and returns where in a map the content of each voxel comes from.

    u = c + R S (v - c) + b(v), both in mm

  Args:
    rng: draws R, S and b.
    spread: how large they may be.
    source: the map's grid.
    view: the painting's grid, with parallel axes.
    centre: c in mm, RAS+.

  Returns:
    float32 [3, X, Y, Z] in voxels of the map.
  """
  turn = Rotation.from_euler("xyz", np.radians(rng.normal(0, spread.turn_deg, 3)))
  factors = np.clip(rng.normal(1, spread.stretch, 3), 0.8, 1.25)
  linear = turn.as_matrix() @ np.diag(factors)
  # One matrix for all affine maps, so that the volume is gone through once.
  back = np.linalg.inv(source.affine)
  matrix = back[:3, :3] @ linear @ view.affine[:3, :3]
  offset = back[:3, :3] @ (linear @ (view.affine[:3, 3] - centre) + centre) + back[:3, 3]
  x, y, z = np.ogrid[tuple(map(slice, view.shape))]
  indices = np.empty((3, *view.shape), np.float32)
  for axis, ((a, b, c), start) in enumerate(zip(matrix, offset, strict=True)):
    bend = spread.bend_mm * draw_smooth_noise(rng, view.shape, view.spacing, _BEND_LENGTH)
    indices[axis] = a * x + b * y + c * z + start + bend / source.spacing[axis]
  return indices


def refine_indices(indices: np.ndarray, coarse: Grid, fine: Grid) -> np.ndarray:
  """Interpolates source indices linearly onto a finer grid of the same field of view."""
  return np.stack([resample_volume(Volume(axis, coarse.affine), fine).array for axis in indices])


def sample_labels(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
  """Returns the label nearest to each place; 0 beyond the map's sides.

  Beyond the first and the last slice these go on: a map ends there because its scan did, not
  because the organs do.

  Args:
    labels: integers [X, Y, Z].
    indices: float32 [3, ...] in voxels.
  """
  result = np.empty(indices.shape[1:], labels.dtype)
  # Plane by plane: index volumes, of 24 bytes a voxel, would be larger than all else.
  for plane, places in zip(result, indices.swapaxes(0, 1), strict=True):
    nearest = np.floor(places + 0.5).astype(np.intp)
    last = np.array(labels.shape)[:, None, None] - 1
    outside = ((nearest[:2] < 0) | (nearest[:2] > last[:2])).any(0)
    found = labels[tuple(np.clip(nearest, 0, last))]
    plane[:] = np.where(outside, 0, found)
  return result
