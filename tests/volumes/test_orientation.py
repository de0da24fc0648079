import itertools

import numpy as np
import pytest

from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.orientation import canonical_grid, from_canonical, to_canonical

SHAPE = (3, 4, 5)
CODES = [
  "".join(code)
  for axes in itertools.permutations(("LR", "PA", "IS"))
  for code in itertools.product(*axes)
]


def make_rotation(x, y, z):
  """Returns a rotation by degrees about the three axes of RAS+."""
  result = np.eye(3)
  for axis, degrees in enumerate((x, y, z)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
    result = turn @ result
  return result


def make_affine(code, angles=(0, 0, 0)):
  """Returns an affine whose axes point as the code says, turned by the angles."""
  affine = np.eye(4)
  for column, (letter, spacing) in enumerate(zip(code, (0.7, 0.8, 2.5), strict=True)):
    axis = next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
    affine[:3, column] = 0
    affine[axis, column] = spacing if letter in "RAS" else -spacing
  affine[:3, :3] = make_rotation(*angles) @ affine[:3, :3]
  affine[:3, 3] = (-120.5, 33.25, 900.75)
  return affine


def world_coordinates(grid):
  """Returns the coordinates of all voxels in mm: [X, Y, Z, 3]."""
  index = np.moveaxis(np.indices(grid.shape), 0, -1)
  return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -7, 20)], ids=["straight", "oblique"])
@pytest.mark.parametrize("code", CODES)
def test_round_trip(code, angles):
  assert len(set(CODES)) == 48
  volume = Volume(np.random.default_rng(0).normal(size=SHAPE), make_affine(code, angles))
  assert volume.orientation == code
  canonical = to_canonical(volume)
  assert canonical.orientation == "RAS"
  assert canonical.shape == canonical_grid(volume.grid).shape
  np.testing.assert_array_equal(canonical.affine, canonical_grid(volume.grid).affine)
  # Each voxel keeps its place: the value at a millimetre is the same in both.
  before = np.column_stack([world_coordinates(volume.grid).reshape(-1, 3), volume.array.ravel()])
  after = np.column_stack(
    [world_coordinates(canonical.grid).reshape(-1, 3), canonical.array.ravel()]
  )
  key = np.argsort(before[:, 3]), np.argsort(after[:, 3])
  np.testing.assert_allclose(before[key[0]], after[key[1]], rtol=0, atol=1e-10)

  back = from_canonical(canonical.array, volume.grid)
  np.testing.assert_array_equal(back.array, volume.array)
  np.testing.assert_array_equal(back.affine, volume.affine)


@pytest.mark.parametrize("code", ["LPS", "SAR", "PIR"])
def test_one_patient_in_any_order_of_axes_gives_the_same_canonical_volume(code):
  canonical = Volume(np.arange(60).reshape(SHAPE), make_affine("RAS"))
  codes = [next(i for i, pair in enumerate(("LR", "PA", "IS")) if c in pair) for c in code]
  flips = tuple(slice(None, None, 1 if c in "RAS" else -1) for c in code)
  stored = canonical.array.transpose(codes)[flips]
  affine = np.eye(4)
  affine[:, :3] = canonical.affine[:, codes]
  for column, letter in enumerate(code):
    if letter not in "RAS":
      affine[:, column] *= -1
  first = [0 if c in "RAS" else SHAPE[axis] - 1 for c, axis in zip(code, codes, strict=True)]
  corner = np.zeros(3)
  corner[codes] = first
  affine[:3, 3] = canonical.affine[:3, :3] @ corner + canonical.affine[:3, 3]

  volume = to_canonical(Volume(stored, affine))
  np.testing.assert_array_equal(volume.array, canonical.array)
  np.testing.assert_allclose(volume.affine, canonical.affine, atol=1e-12)


def test_oblique_stays_oblique():
  volume = Volume(np.zeros(SHAPE), make_affine("LPS", (0, 0, 12)))
  canonical = to_canonical(volume)
  cosines = np.diag(canonical.affine[:3, :3]) / (0.7, 0.8, 2.5)
  assert cosines == pytest.approx([np.cos(np.radians(12)), np.cos(np.radians(12)), 1])


def test_refuses_values_of_another_shape():
  with pytest.raises(ValueError, match=r"\(3, 4, 5\).*\(5, 4, 3\)"):
    from_canonical(np.zeros(SHAPE), Grid(SHAPE, make_affine("SAR")))
