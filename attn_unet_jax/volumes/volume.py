"""The voxel array, the grid it lies on, and what makes both valid."""

from __future__ import annotations

import dataclasses
import itertools

import nibabel as nib
import numpy as np

# No scanner places a voxel a thousand kilometres away. Such a number comes from a damaged header,
# and its square would overflow in the norms below.
_MAX_COORDINATE_MM = 1e9


def round_spacing(spacing_mm: np.ndarray | float) -> np.ndarray:
  """Rounds a spacing in mm to 1e-4, a half upwards."""
  # The border lies 1e-6 mm below the half. 0.78125 and 0.90625 mm are common spacings, and the
  # float32 affine of a turned scan puts them sometimes above and sometimes below the half itself.
  return np.floor(np.asarray(spacing_mm, np.float64) * 1e4 + 0.51) / 1e4


def _read_only_view(array: np.ndarray) -> np.ndarray:
  view = np.asarray(array).view()
  view.flags.writeable = False  # of the view alone: whoever owns the array may still write to it
  return view


def _validate_affine(affine: np.ndarray) -> np.ndarray:
  affine = np.array(affine, np.float64)
  if affine.shape != (4, 4) or not (np.abs(affine) < _MAX_COORDINATE_MM).all():
    raise ValueError(
      f"an affine is 4x4, below {_MAX_COORDINATE_MM:g} mm, this one is {affine.tolist()}"
    )
  # NaN fails the comparison above, so it is refused with the numbers that are too large.
  if not np.array_equal(affine[3], [0, 0, 0, 1]):
    raise ValueError(f"the last row of an affine is 0 0 0 1, this one has {affine[3].tolist()}")
  lengths = np.linalg.norm(affine[:3, :3], axis=0)
  if not (round_spacing(lengths) > 0).all():
    raise ValueError(f"spacings must be at least 1e-4 mm, this affine has {lengths.tolist()}")
  # The determinant of the unit vectors is the volume that they span: 1 for perpendicular axes.
  if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
    raise ValueError(f"the affine's axes lie in one plane: {affine[:3, :3].tolist()}")
  return affine


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
  """The place of voxels: a volume without its values.

  Attributes:
    shape: voxels along (X, Y, Z).
    affine: voxel index -> mm in RAS+, 4x4 float64, read-only.

  Raises:
    ValueError: the shape is not three positive numbers, or the affine is not invertible
      or not below 1e9 mm.
  """

  shape: tuple[int, int, int]
  affine: np.ndarray

  def __post_init__(self) -> None:
    shape = tuple(int(size) for size in self.shape)
    if len(shape) != 3 or min(shape) < 1:
      raise ValueError(f"a grid has three axes of at least one voxel, not the shape {shape}")
    object.__setattr__(self, "shape", shape)  # the way to set a field of a frozen dataclass
    object.__setattr__(self, "affine", _read_only_view(_validate_affine(self.affine)))

  @property
  def spacing(self) -> tuple[float, float, float]:
    """The distance of neighbouring voxels along (X, Y, Z) in mm, rounded to 1e-4."""
    x, y, z = round_spacing(np.linalg.norm(self.affine[:3, :3], axis=0)).tolist()
    return x, y, z

  @property
  def field_mm(self) -> tuple[float, float, float]:
    """The extent of the field of view along (X, Y, Z) in mm: voxels times spacing."""
    x, y, z = (size * spacing for size, spacing in zip(self.shape, self.spacing, strict=True))
    return x, y, z

  @property
  def orientation(self) -> str:
    """The directions that the axes point to most closely: 'RAS', 'LPS', ..."""
    return "".join(nib.aff2axcodes(self.affine))

  @property
  def voxel_volume_ml(self) -> float:
    """The volume of one voxel in millilitres."""
    # The determinant, and not the product of the spacings: a sheared grid has smaller voxels.
    return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

  @property
  def directions(self) -> np.ndarray:
    """The unit vectors of the axes in RAS+, one per column: 3x3."""
    axes = self.affine[:3, :3]
    directions: np.ndarray = axes / np.linalg.norm(axes, axis=0)
    return directions

  @property
  def centre_mm(self) -> np.ndarray:
    """The middle of the field of view in mm, RAS+: [3]."""
    middle = (np.array(self.shape) - 1) / 2
    centre: np.ndarray = self.affine[:3, :3] @ middle + self.affine[:3, 3]
    return centre


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
  """A grid with a value at each voxel; immutable.

  Attributes:
    array: values [X, Y, Z]; a read-only view of what was given, not a copy.
    affine: voxel index -> mm in RAS+, 4x4 float64, read-only.

  Raises:
    ValueError: the array is not three-dimensional, or the affine is unfit for a `Grid`.
  """

  array: np.ndarray
  affine: np.ndarray

  def __post_init__(self) -> None:
    object.__setattr__(self, "array", _read_only_view(self.array))
    object.__setattr__(self, "affine", self.grid.affine)

  @property
  def grid(self) -> Grid:
    """The place of the voxels."""
    return Grid(self.array.shape, self.affine)

  @property
  def shape(self) -> tuple[int, int, int]:
    """The number of voxels along (X, Y, Z)."""
    return self.grid.shape

  @property
  def spacing(self) -> tuple[float, float, float]:
    """The distance of neighbouring voxels along (X, Y, Z) in mm, rounded to 1e-4."""
    return self.grid.spacing

  @property
  def orientation(self) -> str:
    """The directions that the axes point to most closely: 'RAS', 'LPS', ..."""
    return self.grid.orientation

  @property
  def voxel_volume_ml(self) -> float:
    """The volume of one voxel in millilitres."""
    return self.grid.voxel_volume_ml


def corner_distance_mm(a: Grid, b: Grid) -> float:
  """Returns the largest distance in mm between the places that two grids give one voxel.

  Args:
    a: a grid.
    b: another grid of the same shape.
  """
  # The distance is the norm of an affine function of the index, so it is convex and largest at a
  # corner.
  corners = list(itertools.product(*((0, size - 1) for size in a.shape), (1,)))
  shift = (a.affine - b.affine)[:3] @ np.array(corners, np.float64).T
  return float(np.linalg.norm(shift, axis=0).max())
