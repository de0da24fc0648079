"""Random 3-D augmentation of one patch, as pure functions that run inside the compiled step.

A spatial part (rotation, scaling, shift: one affine map about the patch's centre; then flips) acts
on image and label alike, an intensity part on the image only. Just the patch is sampled, out of a
block that `source_shape` makes large enough, so no sample is ever invented. Two 48^3 patches cost
about 4 ms on two CPU cores, which is why eight plain gathers stay: packing the eight neighbours
into one gathered row was ten times slower, one gather of 2x2x2 windows slower too.

Angles are those of the voxel grid: on an anisotropic working grid a rotation shears the anatomy.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Shape = tuple[int, int, int]
Range = tuple[float, float]
PerAxis = tuple[float, float, float]


@dataclass(frozen=True)
class Augmentation:
  """What may be drawn, every draw uniform. The defaults are neutral: nothing changes.

  Attributes:
    flip: probability of mirroring, per axis X, Y, Z.
    rotate_deg: largest angle r about each axis, drawn from [-r, r], in degrees; R = Rz Ry Rx.
    scale: range of the factor from patch to source coordinates: below 1 zooms in.
    scale_axes: which axes are scaled; each draws its own factor.
    shift: largest shift per axis, as a fraction of the patch.
    spatial_probability: probability that rotation, scaling and shift apply to a patch.
    intensity_scale: range of the factor a of `a * image + b`.
    intensity_shift: range of b, in units of the normalised image.
    noise_sd: range of the standard deviation of Gaussian noise, in the same units.

  Raises:
    ValueError: a range with lo > hi, a negative size, or a probability outside [0, 1].
  """

  flip: PerAxis = (0.0, 0.0, 0.0)
  rotate_deg: PerAxis = (0.0, 0.0, 0.0)
  scale: Range = (1.0, 1.0)
  scale_axes: tuple[bool, bool, bool] = (True, True, True)
  shift: PerAxis = (0.0, 0.0, 0.0)
  spatial_probability: float = 1.0
  intensity_scale: Range = (1.0, 1.0)
  intensity_shift: Range = (0.0, 0.0)
  noise_sd: Range = (0.0, 0.0)

  def __post_init__(self) -> None:
    for field in fields(self):
      _check(field.name, getattr(self, field.name))

  @property
  def warps(self) -> bool:
    """Whether any patch is resampled; if not, no interpolation takes place."""
    scales = self.scale != (1.0, 1.0) and any(self.scale_axes)
    return self.spatial_probability > 0 and (
      scales or any(angle > 0 for angle in self.rotate_deg) or any(f > 0 for f in self.shift)
    )


def source_shape(patch: Shape, augmentation: Augmentation) -> Shape:
  """Shape of the block to cut around a patch so that every sample lies inside it.

  Args:
    patch: [X, Y, Z] in voxels.
    augmentation: the ranges.

  Returns:
    patch + 2 * margin, the patch in the middle; the patch itself where nothing reaches out of it.
  """
  reach = _reach(patch, augmentation)
  # 1e-3: float32 rounding of the coordinates must not cost a voxel where the reach is integral.
  margins = [max(0, ceil(r - (n - 1) / 2 - 1e-3)) for r, n in zip(reach, patch, strict=True)]
  x, y, z = (n + 2 * margin for n, margin in zip(patch, margins, strict=True))
  return x, y, z


def augment(
  key: Array, image: Array, label: Array, patch: Shape, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Draws one augmented patch from the middle of a block; `jax.vmap` gives a batch.

  Args:
    key: random key; the result depends on it alone.
    image: float32 block [SX, SY, SZ] of shape `source_shape(patch, augmentation)`, normalised.
    label: integers [SX, SY, SZ].
    patch: [X, Y, Z], static.
    augmentation: the ranges, static.

  Returns:
    image float32 [X, Y, Z] and label [X, Y, Z] of the input's type.

  Raises:
    ValueError: a block of another shape.
  """
  needed = source_shape(patch, augmentation)
  if image.shape != needed or label.shape != needed:
    raise ValueError(f"image block {image.shape}, label block {label.shape}: expected {needed}")
  spatial_key, flip_key, intensity_key = jax.random.split(key, 3)
  mirrored = mirrored_axes(flip_key, augmentation)
  if augmentation.warps:
    matrix = spatial_matrix(spatial_key, patch, augmentation)
    # Mirroring the coordinates: `flip` of the result would make XLA gather up to eight times.
    matrix = matrix * jnp.append(jnp.where(mirrored, -1, 1), 1)
    image, label = warp(image, matrix, patch), warp(label, matrix, patch, nearest=True)
  else:
    image, label = flip(image, mirrored), flip(label, mirrored)
  return intensity(intensity_key, image, augmentation), label


def spatial_matrix(key: Array, patch: Shape, augmentation: Augmentation) -> Array:
  """Draws the affine map from patch to source coordinates, both counted from the centre.

      source = R (S x + t), R = Rz Ry Rx

  Args:
    key: random key.
    patch: [X, Y, Z]; the shift is a fraction of it.
    augmentation: the ranges.

  Returns:
    [3, 4] float32, the last column R t in voxels.
  """
  keys = jax.random.split(key, 4)
  angles = _symmetric(keys[0], augmentation.rotate_deg) * (np.pi / 180)
  factors = jax.random.uniform(
    keys[1], (3,), minval=augmentation.scale[0], maxval=augmentation.scale[1]
  )
  factors = jnp.where(jnp.array(augmentation.scale_axes), factors, 1)
  shift = _symmetric(keys[2], augmentation.shift) * jnp.array(patch)
  rows = jnp.array(_rotation(angles, jnp))
  # Sums of products, not a matmul: accelerators round matmul operands by default.
  offset = jnp.sum(rows * shift, axis=1, keepdims=True)
  drawn = jnp.concatenate([rows * factors, offset], axis=1)
  applies = jax.random.uniform(keys[3]) < augmentation.spatial_probability
  return jnp.where(applies, drawn, jnp.eye(3, 4))


def warp(volume: Array, matrix: Array, patch: Shape, *, nearest: bool = False) -> Array:
  """Samples a patch out of a block at affinely transformed coordinates.

  Args:
    volume: block [SX, SY, SZ].
    matrix: [3, 4], patch to source coordinates, both counted from the grid's centre.
    patch: [X, Y, Z], static.
    nearest: take the nearest voxel (labels) instead of trilinear interpolation (images).

  Returns:
    [X, Y, Z]; of the volume's type if `nearest`. Coordinates outside are clamped to the border.
  """
  coordinates = _coordinates(matrix, patch, volume.shape)
  if nearest:
    return _take(volume, [jnp.floor(c + 0.5).astype(jnp.int32) for c in coordinates])
  # The lower corner stays one voxel inside, so that the upper one exists.
  lower = [
    jnp.clip(jnp.floor(c), 0, max(n - 2, 0)) for c, n in zip(coordinates, volume.shape, strict=True)
  ]
  fractions = [c - low for c, low in zip(coordinates, lower, strict=True)]
  return _trilinear(volume, [low.astype(jnp.int32) for low in lower], fractions)


def mirrored_axes(key: Array, augmentation: Augmentation) -> Array:
  """Draws which of the axes X, Y, Z are mirrored: booleans [3]."""
  return jax.random.uniform(key, (3,)) < jnp.array(augmentation.flip)


def flip(volume: Array, mirrored: Array) -> Array:
  """Mirrors a volume [X, Y, Z] along the axes for which `mirrored` [3] is true."""
  for axis in range(3):
    volume = jnp.where(mirrored[axis], jnp.flip(volume, axis), volume)
  return volume


def intensity(key: Array, image: Array, augmentation: Augmentation) -> Array:
  """`a * image + b + s * n`: a, b and s drawn once per image, n standard normal per voxel.

  Args:
    key: random key, split in four for a, b, s and n.
    image: [X, Y, Z], normalised.
    augmentation: the ranges; a part at its neutral value costs nothing.

  Returns:
    [X, Y, Z].
  """
  scale_key, shift_key, sd_key, noise_key = jax.random.split(key, 4)
  if augmentation.intensity_scale != (1.0, 1.0):
    image = image * _uniform(scale_key, augmentation.intensity_scale)
  if augmentation.intensity_shift != (0.0, 0.0):
    image = image + _uniform(shift_key, augmentation.intensity_shift)
  if augmentation.noise_sd != (0.0, 0.0):
    noise = jax.random.normal(noise_key, image.shape, image.dtype)
    image = image + _uniform(sd_key, augmentation.noise_sd) * noise
  return image


def _coordinates(matrix: Array, patch: Shape, block: tuple[int, ...]) -> list[Array]:
  """Source voxel coordinates, three arrays [X, Y, Z], clamped to the block."""
  x, y, z = jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in patch), indexing="ij", sparse=True)
  return [
    jnp.clip(row[0] * x + row[1] * y + row[2] * z + row[3] + (n - 1) / 2, 0, n - 1)
    for row, n in zip(matrix, block, strict=True)
  ]


def _take(volume: Array, index: list[Array]) -> Array:
  _, sy, sz = volume.shape
  return jnp.take(volume.reshape(-1), (index[0] * sy + index[1]) * sz + index[2], mode="clip")


def _trilinear(volume: Array, lower: list[Array], fractions: list[Array]) -> Array:
  def along(axis: int, index: list[Array]) -> Array:
    if axis == 3:
      return _take(volume, index)
    above = [i + 1 if a == axis else i for a, i in enumerate(index)]
    low, weight = along(axis + 1, index), fractions[axis]
    return low * (1 - weight) + along(axis + 1, above) * weight

  return along(0, lower)


def _uniform(key: Array, bounds: Range) -> Array:
  return jax.random.uniform(key, minval=bounds[0], maxval=bounds[1])


def _symmetric(key: Array, largest: PerAxis) -> Array:
  return jax.random.uniform(key, (3,), minval=-1, maxval=1) * jnp.array(largest)


def _rotation(angles: Any, xp: Any) -> list[list[Any]]:
  """Entries of Rz Ry Rx, right-handed; angles about X, Y, Z in radians; `xp` is the library."""
  cx, cy, cz = (xp.cos(a) for a in angles)
  sx, sy, sz = (xp.sin(a) for a in angles)
  return [
    [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
    [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
    [-sy + 0 * cx, cy * sx, cy * cx],
  ]


@lru_cache
def _reach(patch: Shape, augmentation: Augmentation) -> tuple[float, ...]:
  """Largest |source coordinate| per axis, from the centre, over everything that may be drawn.

  With |S x + t|_j <= e_j it is the maximum over the angles of sum_j |R_ij| e_j: scanned on a grid
  that holds the ends of the ranges. Between grid points the maximum of a sum of sinusoids exceeds
  the scan by at most |e| (sum of half steps)^2 / 2 (0.01 voxel at 15 degrees), which is added for
  the angles that the row depends on.
  """
  half = (np.array(patch) - 1) / 2
  factors = np.where(augmentation.scale_axes, augmentation.scale[1], 1)
  extent = half * factors + np.array(augmentation.shift) * patch
  ends = np.radians(augmentation.rotate_deg)
  grids = np.meshgrid(
    *(np.linspace(-a, a, 65 if a else 1) for a in ends), indexing="ij", sparse=True
  )
  reach = []
  for row in _rotation(grids, np):
    scan = sum(np.abs(r) * e for r, e in zip(row, extent, strict=True))
    moving = [np.ptp(scan, axis).max() > 0 for axis in range(3)]
    slack = np.linalg.norm(extent) * np.sum(ends / 64, where=moving) ** 2 / 2
    reach.append(float(scan.max() + slack))
  return tuple(reach)


def _check(name: str, value: Any) -> None:
  ranges = name in ("scale", "intensity_scale", "intensity_shift", "noise_sd")
  if ranges and not (len(value) == 2 and value[0] <= value[1]):
    raise ValueError(f"augmentation {name}={value}: expected (lo, hi) with lo <= hi")
  if name in ("flip", "rotate_deg", "shift", "scale_axes") and len(value) != 3:
    raise ValueError(f"augmentation {name}={value}: expected one value per axis X, Y, Z")
  if name != "intensity_shift" and np.min(value) < 0:
    raise ValueError(f"augmentation {name}={value}: must not be negative")
  if name in ("flip", "spatial_probability") and np.max(value) > 1:
    raise ValueError(f"augmentation {name}={value}: a probability is at most 1")
