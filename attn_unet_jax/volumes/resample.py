"""Resamples images, labels and predictions between the native and the working grid.

The working grid keeps the canonical axes and the centre of the field of view. Therefore every
interpolation is separable and depends only on shapes and rounded spacings. Equal voxels give equal
bits whatever the affine is, and an image and its label always come to one grid.

Voxels are taken plane by plane along Z in the memory order of NIfTI files (`array.T`, X fastest).
Shapes, and never strides, decide the order of operations. Beside input and output, memory holds
only a few planes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.volume import Grid, Volume, round_spacing

_MANY_TIES = 0.1  # of the voxels along an axis; they would shift a label by a twentieth of a voxel

LabelMethod = Literal["balanced", "nearest", "onehot_linear"]


class _AxisTaps(NamedTuple):
  """The source voxels and weights of linear interpolation along one axis.

  Attributes:
    lower: for each target voxel, the index of the source voxel below it.
    upper: the index of the source voxel above it.
    weight: the weight of the upper one; the lower one has the rest.
    identity: whether source and target voxels coincide, so nothing needs to be computed.
  """

  lower: np.ndarray
  upper: np.ndarray
  weight: np.ndarray
  identity: bool


def working_grid(grid: Grid, spacing_mm: float | Sequence[float]) -> Grid:
  """Returns the grid of another spacing over the field of view of a grid.

  Axes and centre stay. With n voxels of spacing s, and n' of spacing s',

    n' = max(1, round(n s / s'));  i = (i' - (n' - 1) / 2) s' / s + (n - 1) / 2

  Args:
    grid: the grid to cover.
    spacing_mm: the new spacing s' in mm, one for all axes or one per axis; rounded to 1e-4.

  Raises:
    ValueError: a spacing is not positive.
  """
  spacing = np.broadcast_to(round_spacing(np.asarray(spacing_mm)), 3)
  if not (spacing > 0).all():
    raise ValueError(f"a working spacing must be positive, not {spacing_mm} mm")
  extents = np.array(grid.field_mm) / spacing
  shape = tuple(max(1, round(extent)) for extent in extents.tolist())
  affine = np.eye(4)
  affine[:3, :3] = grid.directions * spacing
  affine[:3, 3] = grid.centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
  return Grid(shape, affine)


def _check_centred(source: Grid, target: Grid) -> None:
  """Refuses grids whose axes or centres differ by more than `check_pair` calls harmless."""
  # Taps are separate for each axis, which is right only for parallel axes about one centre.
  if not np.allclose(source.directions, target.directions, atol=1e-2):
    raise ValueError("the grids' axes are not parallel; turn both to canonical axes first")
  distance = float(np.linalg.norm(source.centre_mm - target.centre_mm))
  if distance > 0.25 * min(source.spacing + target.spacing):
    raise ValueError(f"the grids' centres are {distance:.3f} mm apart; use working_grid")


def _source_positions(source: Grid, target: Grid, axis: int) -> np.ndarray:
  """Returns the target voxels' positions in source voxels along an axis: [n']."""
  n, m = source.shape[axis], target.shape[axis]
  ratio = target.spacing[axis] / source.spacing[axis]
  places = (np.arange(m) - (m - 1) / 2) * ratio + (n - 1) / 2
  # Rounding makes a position that is meant to be whole or half exactly that, so that ties do not
  # depend on the last bit of a spacing. Clipping continues the edges.
  return np.clip(np.round(places, 6), 0, n - 1)


def _axis_taps(source: Grid, target: Grid, axis: int) -> _AxisTaps:
  places = _source_positions(source, target, axis)
  lower = np.floor(places).astype(np.intp)
  upper = np.minimum(lower + 1, source.shape[axis] - 1)
  weight = (places - lower).astype(np.float32)
  identity = np.array_equal(places, np.arange(source.shape[axis]))
  return _AxisTaps(lower, upper, weight, identity)


def _lerp_in_place(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
  """Returns lower + weight (upper - lower), computed in place in `upper`."""
  upper -= lower
  upper *= weight
  upper += lower
  return upper


def _interpolate_y(plane: np.ndarray, taps: _AxisTaps) -> np.ndarray:
  if taps.identity:
    return plane
  lower, upper = plane.take(taps.lower, axis=-2), plane.take(taps.upper, axis=-2)
  return _lerp_in_place(lower, upper, taps.weight[:, None])


def _interpolate_x(plane: np.ndarray, taps: _AxisTaps) -> np.ndarray:
  if taps.identity:
    return plane
  lower, upper = plane.take(taps.lower, axis=-1), plane.take(taps.upper, axis=-1)
  return _lerp_in_place(lower, upper, taps.weight)


def _interpolate_planes(stack: np.ndarray, source: Grid, target: Grid) -> Iterator[np.ndarray]:
  """Yields linearly interpolated planes of the target, one after the other.

  Args:
    stack: source values [..., Z, Y, X] of any numeric type.
    source: their grid.
    target: a grid with the same axes and centre.

  Yields:
    float32 [..., Y', X'] for each z' of the target.
  """
  x, y, z = (_axis_taps(source, target, axis) for axis in range(3))
  shrinks = len(y.weight) <= source.shape[1]
  for lower, upper, weight in zip(z.lower, z.upper, z.weight, strict=True):
    plane = stack[..., lower, :, :].astype(np.float32, order="C")
    if weight:  # else the plane above need not be read
      plane = _lerp_in_place(plane, stack[..., upper, :, :].astype(np.float32, order="C"), weight)
    # Rows are cheaper to gather than columns: columns get the smaller plane.
    yield (
      _interpolate_x(_interpolate_y(plane, y), x)
      if shrinks
      else _interpolate_y(_interpolate_x(plane, x), y)
    )


def _resample_linear(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
  result = np.empty(target.shape[::-1], np.float32)
  for plane, values in zip(result, _interpolate_planes(array.T, source, target), strict=True):
    plane[:] = values
  return result.T


def _resample_nearest(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
  # Not `np.rint`, which rounds halves to even: a doubled grid would not repeat its voxels evenly.
  nearest = [
    np.floor(_source_positions(source, target, axis) + 0.5).astype(np.intp) for axis in range(3)
  ]
  top = [np.minimum(index, size - 1) for index, size in zip(nearest, source.shape, strict=True)]
  return array.T[np.ix_(*top[::-1])].T


def _resample_balanced(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
  """Takes the nearest voxel; where many voxels are equally near, the label that most of them have.

  Labels that equally many have take turns along the grid.
  """
  near = [_nearest_voxels(source, target, axis) for axis in range(3)]
  if all(len(one) == 1 for one in near):
    return _resample_nearest(array, source, target)
  result = np.empty(target.shape[::-1], array.dtype)
  x_near, y_near, z_near = near
  for z, plane in enumerate(result):
    rows = [array.T[index[z]][y] for index in z_near for y in y_near]
    candidates = [row[:, x] for row in rows for x in x_near]
    plane[:] = candidates[0]
    unequal = np.zeros(plane.shape, bool)
    for other in candidates[1:]:
      unequal |= other != candidates[0]
    # The candidates differ at the surface alone: few voxels are voted on.
    y, x = np.nonzero(unequal)
    votes = np.stack([candidate[y, x] for candidate in candidates])
    # On a plane of the grid in any of the directions to the 26 neighbours, half have each turn: a
    # surface that runs halfway between voxels moves neither in nor out.
    plane[y, x] = _vote(votes, (x + 2 * y + 3 * z) % 4 < 2)
  return result.T


def _nearest_voxels(source: Grid, target: Grid, axis: int) -> list[np.ndarray]:
  """Lists the nearest source voxel of each target voxel along an axis, or both where many tie."""
  places = _source_positions(source, target, axis)
  lower, upper = np.ceil(places - 0.5).astype(np.intp), np.floor(places + 0.5).astype(np.intp)
  # A tie by itself, as in the middle of an axis, moves nothing. Where many tie, the others have
  # twice the same voxel, hence the same weight.
  return [lower, upper] if np.mean(lower != upper) >= _MANY_TIES else [upper]


def _vote(votes: np.ndarray, turn: np.ndarray) -> np.ndarray:
  """Returns the label that most votes [C, M] name; of labels with equally many, by turn [M]."""
  most = np.zeros(votes.shape[1], np.intp)
  lowest, highest = votes[0].copy(), votes[0].copy()
  for label in np.unique(votes):  # in increasing order
    count = np.count_nonzero(votes == label, axis=0)
    lowest[count > most] = label
    highest[count >= most] = label
    np.maximum(most, count, out=most)
  chosen: np.ndarray = np.where(turn, highest, lowest)
  return chosen


def resample_volume(
  volume: Volume, target: Grid, order: Literal["linear", "nearest"] = "linear"
) -> Volume:
  """Resamples a volume onto a grid with its axes and centre; edges are continued.

  Args:
    volume: values [X, Y, Z] of any numeric type.
    target: a grid such as `working_grid(volume.grid, ...)`, or the native grid for the way back.
    order: 'linear' gives float32; 'nearest' keeps the type, a half going to the higher index.

  Raises:
    ValueError: the grids' axes or centres differ.
  """
  source = volume.grid
  _check_centred(source, target)
  interpolate = {"linear": _resample_linear, "nearest": _resample_nearest}[order]
  return Volume(interpolate(volume.array, source, target), target.affine)


def resample_labels(labels: Volume, target: Grid, method: LabelMethod = "balanced") -> Volume:
  """Resamples a label map onto a grid with its axes and centre, keeping its type.

  Args:
    labels: integers [X, Y, Z].
    target: the grid that the image decides: `working_grid(image.grid, ...)`.
    method: 'balanced' takes the nearest voxel and, where many on an axis have two of them, the
      label of most of these, so that labels stay where they are. 'nearest' takes the one of the
      highest index: labels shift where many tie, by half a voxel if an even number is halved.
      'onehot_linear' interpolates each label's indicator linearly and takes the largest one; ties
      go to the lower label, so that organs shrink where many tie.

  Raises:
    ValueError: the grids' axes or centres differ.
  """
  if method == "nearest":
    return resample_volume(labels, target, order="nearest")
  _check_centred(labels.grid, target)
  if method == "balanced":
    return Volume(_resample_balanced(labels.array, labels.grid, target), target.affine)
  values = np.unique(labels.array)  # in increasing order, so a tie stays with the lower label
  best = np.full(target.shape[::-1], -1, np.float32)
  winner = np.zeros(target.shape[::-1], labels.array.dtype)
  for value in values:
    indicator = (labels.array == value).T
    for z, share in enumerate(_interpolate_planes(indicator, labels.grid, target)):
      np.copyto(winner[z], value, where=share > best[z])
      np.maximum(best[z], share, out=best[z])
  return Volume(winner.T, target.affine)


def resample_occupancy(
  labels: Volume, target: Grid, steps: int, unlabelled: int | None = None
) -> Volume:
  """Resamples a mask to the share of each voxel that it fills, by linear interpolation.

  Args:
    labels: 1 in the mask, 0 outside, `unlabelled` where that is unknown, [X, Y, Z].
    target: a grid with its axes and centre.
    steps: the value of a full voxel, at most 254.
    unlabelled: the value of unknown voxels, larger than `steps`.

  Returns:
    uint8: shares from 0 to `steps`, of the known part of a voxel; `unlabelled` where less than half
    is known.

  Raises:
    ValueError: the grids' axes or centres differ.
  """
  _check_centred(labels.grid, target)
  result = np.zeros(target.shape[::-1], np.uint8)
  inside = _interpolate_planes((labels.array == 1).T, labels.grid, target)
  if unlabelled is None or not (labels.array == unlabelled).any():
    for plane, share in zip(result, inside, strict=True):
      plane[:] = np.rint(share * steps)
    return Volume(result.T, target.affine)
  known = _interpolate_planes((labels.array != unlabelled).T, labels.grid, target)
  for plane, share, part in zip(result, inside, known, strict=True):
    plane[:] = np.where(
      part >= 0.5, np.rint(share / np.maximum(part, 0.5) * steps), np.uint8(unlabelled)
    )
  return Volume(result.T, target.affine)


def _argmax_channels(channels: np.ndarray) -> np.ndarray:
  """Returns the index of the largest channel of [K, Y, X] as uint8 [Y, X]; ties go to the lower."""
  # `np.argmax` along this axis takes many times as long for two classes, and gives int64.
  winner: np.ndarray = (channels[1] > channels[0]).astype(np.uint8)
  best = np.maximum(channels[0], channels[1])
  for label, channel in enumerate(channels[2:], start=2):
    np.copyto(winner, np.uint8(label), where=channel > best)
    np.maximum(best, channel, out=best)
  return winner


def probabilities_to_labels(probabilities: np.ndarray, source: Grid, target: Grid) -> Volume:
  """Interpolates class probabilities onto another grid and takes the most probable class.

  Args:
    probabilities: [X, Y, Z, K] on the source (working) grid, 2 <= K <= 256.
    source: their grid.
    target: the (native, canonical) grid to end on, with the axes and the centre of the source.

  Returns:
    labels uint8 [X, Y, Z] on the target; ties go to the lower class.

  Raises:
    ValueError: the array is not on the source grid, K is out of range, or the grids' axes or
      centres differ.
  """
  if probabilities.shape[:3] != source.shape or probabilities.ndim != 4:
    raise ValueError(f"probabilities {probabilities.shape} are not [X, Y, Z, K] on {source.shape}")
  if not 2 <= probabilities.shape[3] <= 256:
    raise ValueError(f"{probabilities.shape[3]} classes; labels in uint8 need 2 to 256")
  _check_centred(source, target)
  # Plane by plane: K float32 volumes on a native grid may be larger than the memory.
  labels = np.empty(target.shape[::-1], np.uint8)
  for plane, values in zip(
    labels, _interpolate_planes(probabilities.T, source, target), strict=True
  ):
    plane[:] = _argmax_channels(values)
  return Volume(labels.T, target.affine)


def interpolate_box(
  array: np.ndarray, source: Grid, target: Grid, where: tuple[slice, slice, slice]
) -> np.ndarray:
  """Interpolates linearly in a box of the target grid, and computes no other voxel.

  Args:
    array: values [X, Y, Z] on the source grid.
    source: their grid.
    target: a grid with its axes and centre.
    where: the voxels of the target.

  Returns:
    float32 of the shape of the box.

  Raises:
    ValueError: the grids' axes or centres differ.
  """
  _check_centred(source, target)
  for axis, side in enumerate(where):
    taps = _axis_taps(source, target, axis)
    lower = array.take(taps.lower[side], axis).astype(np.float32)
    upper = array.take(taps.upper[side], axis).astype(np.float32)
    weight = np.expand_dims(taps.weight[side], tuple(range(1, 3 - axis)))
    array = _lerp_in_place(lower, upper, weight)
  return array


def gaussian_blur(volume: Volume, sigma_mm: float) -> Volume:
  """Blurs an image with an isotropic Gaussian and returns float32; edges are continued.

  Args:
    volume: the image [X, Y, Z].
    sigma_mm: standard deviation of the Gaussian in mm.
  """
  sigma = [sigma_mm / spacing for spacing in volume.spacing]
  array = volume.array.astype(np.float32)
  return Volume(ndimage.gaussian_filter(array, sigma, mode="nearest"), volume.affine)
