"""Random rotation, scaling, shift and moved corners: one affine map from patch to source."""

import itertools
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from attn_unet_jax.augment.options import Augmentation, PerAxis

Shape = tuple[int, int, int]


def draw_spatial_matrix(key: Array, patch: Shape, augmentation: Augmentation) -> Array:
  """Draws the affine map from patch to source coordinates, both counted from the centre.

      source = R (S C(x) + t), R = Rz Ry Rx, C from `draw_corner_matrix`

  Args:
    key: random key.
    patch: [X, Y, Z]; the shift is a fraction of it.
    augmentation: the ranges.

  Returns:
    [3, 4] float32, the last column in voxels.
  """
  keys = jax.random.split(key, 4)
  angles = _draw_symmetric(keys[0], augmentation.rotate_deg) * (np.pi / 180)
  factors = jax.random.uniform(
    keys[1], (3,), minval=augmentation.scale[0], maxval=augmentation.scale[1]
  )
  factors = jnp.where(jnp.array(augmentation.scale_axes), factors, 1)
  shift = _draw_symmetric(keys[2], augmentation.shift) * jnp.array(patch)
  rows = jnp.array(rotation_entries(angles, jnp))
  # Sums of products, not a matmul: accelerators round matmul operands by default.
  offset = jnp.sum(rows * shift, axis=1, keepdims=True)
  drawn = jnp.concatenate([rows * factors, offset], axis=1)
  if augmentation.corner_scale:
    # A key of its own, not a fifth part: runs without corners keep their draws.
    corners = draw_corner_matrix(jax.random.fold_in(key, 4), patch, augmentation.corner_scale)
    linear = jnp.sum(drawn[:, :3, None] * corners[None], axis=1)
    drawn = linear.at[:, 3].add(drawn[:, 3])
  applies = jax.random.uniform(keys[3]) < augmentation.spatial_probability
  return jnp.where(applies, drawn, jnp.eye(3, 4))


def draw_corner_matrix(key: Array, patch: Shape, scale: float) -> Array:
  """Draws the affine map that fits moved corners best (Dense V-Net, Gibson et al. 2018).

  Every coordinate of the patch's eight corners is multiplied by its own draw from 1 - scale to 1;
  mostly it zooms in. With coordinates in units of half the patch the corners are c in {-1, 1}^3,
  the least-squares fit to their targets y is y = A x + b with A = mean(y c^T) and b = mean(y).

  Args:
    key: random key.
    patch: [X, Y, Z].
    scale: 0 to 1.

  Returns:
    [3, 4] float32, from voxels to voxels, both counted from the centre.
  """
  corners = np.array(list(itertools.product((-1, 1), repeat=3)))
  targets = corners * jax.random.uniform(key, corners.shape, minval=1 - scale, maxval=1)
  half = (np.array(patch) - 1) / 2
  linear = jnp.mean(targets[:, :, None] * corners[:, None], axis=0)
  # From units of half the patch to voxels. A patch of one voxel has no half to divide by.
  linear = linear * (half[:, None] / np.maximum(half, 0.5)[None])
  return jnp.concatenate([linear, (jnp.mean(targets, axis=0) * half)[:, None]], axis=1)


def _draw_symmetric(key: Array, largest: PerAxis) -> Array:
  """Draws a number per axis [3], uniform in [-largest, largest]."""
  return jax.random.uniform(key, (3,), minval=-1, maxval=1) * jnp.array(largest)


def rotation_entries(angles: Any, xp: Any) -> list[list[Any]]:
  """Returns the entries of Rz Ry Rx, right-handed, row by row.

  Args:
    angles: about X, Y, Z, in radians; arrays of any shapes that broadcast.
    xp: `numpy` or `jax.numpy`.
  """
  cx, cy, cz = (xp.cos(a) for a in angles)
  sx, sy, sz = (xp.sin(a) for a in angles)
  return [
    [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
    [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
    [-sy + 0 * cx, cy * sx, cy * cx],
  ]


@lru_cache
def largest_reach(patch: Shape, augmentation: Augmentation) -> tuple[float, ...]:
  """Computes the largest |source coordinate| per axis, from the centre, over all draws.

  With |S x + t|_j <= e_j it is the maximum over the angles of sum_j |R_ij| e_j. The angles are
  scanned on a grid that includes the ends of their ranges. Between grid points the maximum of a sum
  of sinusoids exceeds the scan by at most |e| (sum of half steps)^2 / 2 (0.01 voxel at 15 degrees),
  which is added for the angles that the row depends on.
  """
  # A fitted corner is 1/2 its own target plus 1/4 of each of its three neighbours' less 1/4 of the
  # opposite corner's: at most 1 + s/4 of the patch, if only the neighbour across the axis moves.
  half = (np.array(patch) - 1) / 2 * (1 + augmentation.corner_scale / 4)
  factors = np.where(augmentation.scale_axes, augmentation.scale[1], 1)
  extent = half * factors + np.array(augmentation.shift) * patch
  ends = np.radians(augmentation.rotate_deg)
  grids = np.meshgrid(
    *(np.linspace(-a, a, 65 if a else 1) for a in ends), indexing="ij", sparse=True
  )
  reach = []
  for row in rotation_entries(grids, np):
    scan = sum(np.abs(r) * e for r, e in zip(row, extent, strict=True))
    moving = [np.ptp(scan, axis).max() > 0 for axis in range(3)]
    slack = np.linalg.norm(extent) * np.sum(ends / 64, where=moving) ** 2 / 2
    reach.append(float(scan.max() + slack))
  return tuple(reach)
