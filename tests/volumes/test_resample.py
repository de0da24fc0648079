import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.checks import check_pair
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.resample import (
  gaussian_blur,
  interpolate_box,
  probabilities_to_labels,
  resample_labels,
  resample_occupancy,
  resample_volume,
  working_grid,
)
from tests.conftest import SHARED

SHAPE = (13, 17, 9)
SPACING = (0.78125, 0.9, 2.5)
WORKING = [2.0, 0.5, (1.5, 0.9, 1.0)]


def make_grid(shape=SHAPE, spacing=SPACING, degrees=0, origin=(-50, 20, 7)):
  affine = np.diag([*spacing, 1.0])
  c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  affine[:2, :2] = np.array([[c, -s], [s, c]]) @ affine[:2, :2]
  affine[:3, 3] = origin
  return Grid(shape, affine)


def make_noise(at=None, seed=0):
  at = at or make_grid()
  values = np.random.default_rng(seed).integers(-1000, 1500, at.shape, dtype=np.int16)
  return Volume(values, at.affine)


def source_positions(source, target):
  """Returns target voxels in source voxels, by the centre-aligned definition: [3, X', Y', Z']."""
  axes = [
    (np.arange(m) - (m - 1) / 2) * t / s + (n - 1) / 2
    for n, s, m, t in zip(source.shape, source.spacing, target.shape, target.spacing, strict=True)
  ]
  return np.stack(np.meshgrid(*axes, indexing="ij"))


def make_sphere(shape, spacing, radius_mm):
  index = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
  return (np.sum((index * np.reshape(spacing, (3, 1, 1, 1))) ** 2, axis=0) <= radius_mm**2).astype(
    np.uint8
  )


def dice(a, b):
  return 2 * np.sum((a > 0) & (b > 0)) / (np.sum(a > 0) + np.sum(b > 0))


@pytest.mark.parametrize("spacing", WORKING)
def test_working_grid_covers_the_same_field_of_view(spacing):
  native, working = make_grid(degrees=12), working_grid(make_grid(degrees=12), spacing)
  assert working.spacing == tuple(np.broadcast_to(spacing, 3))
  np.testing.assert_allclose(working.centre_mm, native.centre_mm, atol=1e-9)
  np.testing.assert_allclose(working.directions, native.directions, atol=1e-12)
  extents = np.array(native.shape) * native.spacing, np.array(working.shape) * working.spacing
  assert np.all(np.abs(extents[0] - extents[1]) <= np.array(working.spacing) / 2)


def test_working_grid_by_hand():
  working = working_grid(make_grid((10, 10, 3), (1, 1, 3), origin=(0, 0, 0)), 2)
  assert working.shape == (5, 5, 4)  # 9 mm at 2 mm: 4.5 rounds to the even 4
  np.testing.assert_array_equal(working.affine[:3, 3], [0.5, 0.5, 0.0])


def test_working_grid_keeps_at_least_one_voxel():
  assert working_grid(make_grid((1, 4, 4), (0.5, 1, 1)), 2.0).shape == (1, 2, 2)


def test_spacings_that_round_to_the_same_give_the_same_grid():
  a = working_grid(make_grid((101, 101, 50), (0.75, 0.75, 2)), 0.6)
  b = working_grid(make_grid((101, 101, 50), (0.7500001, 0.7499999, 2)), 0.6000001)
  assert a.shape == b.shape
  np.testing.assert_allclose(a.affine, b.affine, atol=1e-4)
  array = make_noise(make_grid((101, 101, 50))).array
  fine = [
    resample_volume(
      Volume(array, np.diag([*spacing, 1.0])),
      working_grid(Grid(array.shape, np.diag([*spacing, 1.0])), 1.7),
    )
    for spacing in ((0.75, 0.75, 2), (0.7500001, 0.7499999, 2))
  ]
  np.testing.assert_array_equal(fine[0].array, fine[1].array)


@pytest.mark.parametrize("spacing", WORKING)
def test_linear_is_scipys(spacing):
  volume = make_noise()
  target = working_grid(volume.grid, spacing)
  expected = ndimage.map_coordinates(
    volume.array.astype(np.float64), source_positions(volume.grid, target), order=1, mode="nearest"
  )
  result = resample_volume(volume, target)
  assert result.array.dtype == np.float32
  # Places are rounded to 1e-6 voxel: at most 2500 HU x 3 axes x 5e-7, and float32.
  np.testing.assert_allclose(result.array, expected, rtol=0, atol=5e-3)
  np.testing.assert_array_equal(result.affine, target.affine)


@pytest.mark.parametrize("spacing", WORKING)
def test_nearest_takes_the_closest_voxel(spacing):
  volume = make_noise()
  target = working_grid(volume.grid, spacing)
  result = resample_volume(volume, target, order="nearest")
  assert result.array.dtype == np.int16
  at = np.clip(
    np.floor(source_positions(volume.grid, target).round(6) + 0.5).astype(int),
    0,
    np.reshape(SHAPE, (3, 1, 1, 1)) - 1,
  )
  np.testing.assert_array_equal(result.array, volume.array[tuple(at)])


def test_halfway_the_higher_voxel_is_taken_whatever_rounding_says():
  """For nine voxels of 0.49 mm, at 1.5 (a little less in float64) and 6.5."""
  volume = Volume(np.arange(9, dtype=np.int16)[:, None, None], np.diag([0.49, 1, 1, 1]))
  result = resample_volume(volume, working_grid(volume.grid, (2.45, 1, 1)), order="nearest")
  assert result.array.ravel().tolist() == [2, 7]


@pytest.mark.parametrize("spacing", WORKING)
def test_a_box_is_that_part_of_the_whole(spacing):
  volume = make_noise()
  target = working_grid(volume.grid, spacing)
  where = tuple(slice(1, size + 5) for size in target.shape)  # the grid ends before the last two do
  where = (where[0], slice(0, 3), where[2])
  part = interpolate_box(volume.array, volume.grid, target, where)
  np.testing.assert_allclose(part, resample_volume(volume, target).array[where], atol=1e-2)
  with pytest.raises(ValueError, match=r"not parallel"):
    interpolate_box(volume.array, volume.grid, working_grid(make_grid(degrees=12), 2.0), where)


@pytest.mark.parametrize("spacing", WORKING)
def test_a_linear_ramp_is_reproduced(spacing):
  native = make_grid()
  slope = np.array([3.0, -2.0, 0.5])
  target = working_grid(native, spacing)
  index = np.moveaxis(np.indices(native.shape), 0, -1)
  ramp = Volume((index * native.spacing) @ slope, native.affine)
  result = resample_volume(ramp, target).array
  # Between the first and the last voxel's centre; beyond them the edge is continued.
  last = np.reshape(native.shape, (3, 1, 1, 1)) - 1
  at = np.moveaxis(np.clip(source_positions(native, target), 0, last), 0, -1)
  np.testing.assert_allclose(result, (at * native.spacing) @ slope, atol=1e-4)


def test_an_equal_grid_changes_nothing():
  volume = make_noise()
  target = working_grid(volume.grid, volume.spacing)
  assert target.shape == volume.shape
  for order in ("linear", "nearest"):
    np.testing.assert_array_equal(resample_volume(volume, target, order).array, volume.array)
  labels = Volume((volume.array > 0).astype(np.uint8), volume.affine)
  for method in ("balanced", "nearest", "onehot_linear"):
    np.testing.assert_array_equal(resample_labels(labels, target, method).array, labels.array)


@pytest.mark.parametrize("order", ["linear", "nearest"])
def test_a_turned_patient_gives_the_same_bits(order):
  straight = make_noise()
  turned = Volume(straight.array, make_grid(degrees=12).affine.astype(np.float32))
  results = [resample_volume(v, working_grid(v.grid, 2.0), order).array for v in (straight, turned)]
  np.testing.assert_array_equal(results[0], results[1])


def test_memory_layout_does_not_change_a_bit():
  volume = make_noise(make_grid((31, 45, 27)))
  blurred, down = (
    gaussian_blur(volume, 0.75),
    resample_volume(volume, working_grid(volume.grid, 1.3)),
  )
  stored = np.ascontiguousarray(volume.array.transpose(2, 0, 1)[::-1])  # as a file in I, R, A
  affine = volume.affine[:, [2, 0, 1, 3]].copy()
  affine[:3, 3] += affine[:3, 0] * (volume.shape[2] - 1)
  affine[:3, 0] *= -1
  other = to_canonical(Volume(stored, affine))
  assert other.array.strides != volume.array.strides
  np.testing.assert_array_equal(gaussian_blur(other, 0.75).array, blurred.array)
  np.testing.assert_array_equal(
    resample_volume(other, working_grid(other.grid, 1.3)).array, down.array
  )


def test_image_and_label_meet_on_one_grid():
  image = make_noise()
  # The target is decided once, from the image; the label's own header is a little off, harmlessly.
  off = make_grid(spacing=(0.78127, 0.9, 2.5001), origin=(-50.03, 20.02, 7), degrees=0.05)
  assert "harmless" in (check_pair(image.grid, off, ("image", "label")) or "")
  labels = Volume((image.array > 0).astype(np.uint8), off.affine)
  target = working_grid(image.grid, 2.0)
  assert (
    resample_volume(image, target).shape == resample_labels(labels, target).shape == target.shape
  )
  exact = resample_labels(Volume(labels.array, image.affine), target)
  np.testing.assert_array_equal(resample_labels(labels, target).array, exact.array)


def test_refuses_grids_that_are_not_aligned():
  volume = make_noise()
  with pytest.raises(ValueError, match=r"not parallel"):
    resample_volume(volume, working_grid(make_grid(degrees=12), 2.0))
  with pytest.raises(ValueError, match=r"centres are 5.000 mm apart"):
    resample_volume(volume, working_grid(make_grid(origin=(-47, 24, 7)), 2.0))
  with pytest.raises(ValueError, match=r"positive"):
    working_grid(volume.grid, 0.0)


def _centre_mm(mask, grid):
  index = np.argwhere(mask)
  return index.mean(0) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _shift_and_volume(labels, spacing, method):
  """How far resampling moves the label in mm along each axis, and its volume after by before."""
  target = working_grid(labels.grid, spacing)
  result = resample_labels(labels, target, method).array
  shift = _centre_mm(result, target) - _centre_mm(labels.array, labels.grid)
  before = labels.array.sum() * np.prod(labels.spacing)
  return shift, result.sum() * np.prod(target.spacing) / before


# Grids of 1 mm: halved, quartered, and by two thirds; where voxels tie, and where none does.
@pytest.mark.parametrize(
  ("size", "spacing", "ties"),
  [(60, 2.0, True), (61, 2.0, False), (60, 4.0, True), (60, 1.5, False), (61, 1.5, True)],
)
@pytest.mark.parametrize("off", [0.0, 3.3])
def test_labels_lie_where_the_organ_lies(size, spacing, ties, off):
  """Not where the tie of a rounded index puts them: half a voxel of the finer grid lower."""
  centre = (size - 1) / 2 + off
  ball = sum(
    (np.arange(size).reshape(shape) - centre) ** 2 for shape in np.eye(3, dtype=int) * -2 + 1
  )
  labels = Volume((ball <= 15.3**2).astype(np.uint8), np.eye(4))
  shift, volume = _shift_and_volume(labels, spacing, "balanced")
  assert np.abs(shift).max() < 0.05
  assert volume == pytest.approx(1, abs=0.03 if spacing < 4 else 0.08)
  former, _ = _shift_and_volume(labels, spacing, "nearest")
  assert (former.max() < -0.2) == ties


def test_a_box_between_voxels_keeps_its_place_and_its_volume():
  """All of its six faces run halfway: to the lower label by one-hot, which loses a fifth."""
  array = np.zeros((60, 60, 60), np.uint8)
  array[15:45, 15:45, 15:45] = 1
  labels = Volume(array, np.eye(4))
  shift, volume = _shift_and_volume(labels, 2.0, "balanced")
  assert np.abs(shift).max() < 0.03
  assert volume == pytest.approx(1, abs=0.02)
  assert _shift_and_volume(labels, 2.0, "nearest")[0] == pytest.approx([-1, -1, -1])
  assert _shift_and_volume(labels, 2.0, "onehot_linear")[1] < 0.85


@pytest.mark.parametrize(("spacing", "alone"), [((2.0, 2.0, 2.1), 2), ((1.7, 0.9, 1.25), 0)])
def test_without_many_ties_labels_are_those_of_the_nearest_voxel(spacing, alone):
  """So that runs and records of such grids repeat; a tie in the middle of an axis moves nothing."""
  volume = make_noise(make_grid((40, 34, 24)))
  target = working_grid(volume.grid, spacing)
  places = [np.unique(axis.round(6)) % 1 == 0.5 for axis in source_positions(volume.grid, target)]
  assert sum(axis.sum() for axis in places) == alone
  results = [resample_labels(volume, target, method).array for method in ("balanced", "nearest")]
  np.testing.assert_array_equal(*results)
  assert results[0].dtype == np.int16


def test_the_label_of_most_of_the_nearest_voxels_is_taken():
  """Of two voxels each way, with three labels in them; equally many take turns along the grid."""
  votes = {(3, 3, 3, 1, 1, 7, 7, 7): {3, 7}, (1, 1, 1, 1, 0, 0, 0, 0): {0, 1}, (5,) * 8: {5}}
  votes |= {(7, 7, 7, 7, 1, 1, 3, 3): {7}, (255, 255, 255, 1, 1, 0, 0, 0): {0, 255}}
  for eight, expected in votes.items():
    block = np.array(eight, np.uint8).reshape(2, 2, 2)
    labels = Volume(np.tile(block, (4, 4, 4)), np.eye(4))
    result = resample_labels(labels, working_grid(labels.grid, 2.0), "balanced").array
    values, counts = np.unique(result, return_counts=True)
    assert set(values.tolist()) == expected
    assert set(counts.tolist()) == {64 // len(expected)}


@pytest.mark.parametrize("spacing", WORKING)
def test_occupancy_is_the_interpolated_mask(spacing):
  at = make_grid()
  mask = (np.random.default_rng(3).random(at.shape) < 0.4).astype(np.uint8)
  target = working_grid(at, spacing)
  expected = ndimage.map_coordinates(
    mask.astype(np.float64), source_positions(at, target), order=1, mode="nearest"
  )
  result = resample_occupancy(Volume(mask, at.affine), target, 254, 255)
  assert result.array.dtype == np.uint8
  np.testing.assert_allclose(result.array / 254, expected, atol=0.5 / 254 + 1e-5)
  np.testing.assert_array_equal(result.affine, target.affine)


def test_occupancy_is_of_the_known_part_of_a_voxel():
  """Of four voxels each: one, two or three are unknown, the others inside or outside."""
  pairs = [[1, 0, 1, 255], [1, 0, 255, 255], [1, 255, 255, 255], [1, 1, 1, 1], [255] * 4]
  labels = np.array(pairs, np.uint8).reshape(5, 1, 2, 2).repeat(2, 1).reshape(10, 2, 2)
  result = resample_occupancy(
    Volume(labels, np.eye(4)), working_grid(Grid((10, 2, 2), np.eye(4)), 2.0), 254, 255
  )
  assert result.array.ravel().tolist() == [169, 127, 255, 254, 255]


def test_occupancy_loses_least_of_what_the_grid_can_hold():
  """A ball that comes back from it is nearer to the ball than from any hard label."""
  ball = Volume(make_sphere((60, 60, 60), (1, 1, 1), 15.3), np.eye(4))
  target = working_grid(ball.grid, 2.0)
  share = resample_occupancy(ball, target, 254).array.astype(np.float32) / 254
  hard = [
    resample_labels(ball, target, method).array.astype(np.float32)
    for method in ("balanced", "nearest", "onehot_linear")
  ]
  best, *others = (
    dice(probabilities_to_labels(np.stack([1 - p, p], -1), target, ball.grid).array, ball.array)
    for p in (share, *hard)
  )
  assert best > 0.975 > max(others)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real label maps are not at {SHARED}")
@pytest.mark.parametrize("name", ["case18", "case37", "case53"])
def test_no_organ_of_a_real_map_is_shifted(name):
  """Along the body, where slices of 1 mm come to 2 mm; they were moved by half a millimetre."""
  volume = to_canonical(read_label(SHARED / "multiorgan_labels" / f"{name}.nii.gz"))
  for organ in (1, 6):
    labels = Volume((volume.array == organ).astype(np.uint8), volume.affine)
    shift, size = _shift_and_volume(labels, 2.0, "balanced")
    assert abs(shift[2]) < 0.1
    assert size == pytest.approx(1, abs=0.01)
    assert _shift_and_volume(labels, 2.0, "nearest")[0][2] < -0.4


def test_onehot_linear_is_the_argmax_of_interpolated_indicators():
  at = make_grid((12, 11, 10), (1, 1, 1))
  labels = Volume(np.random.default_rng(3).choice([0, 2, 7], at.shape).astype(np.uint8), at.affine)
  target = working_grid(at, 1.7)
  values = np.array([0, 2, 7])
  shares = np.stack(
    [
      ndimage.map_coordinates(
        (labels.array == v).astype(float), source_positions(at, target), order=1, mode="nearest"
      )
      for v in values
    ]
  )
  result = resample_labels(labels, target, "onehot_linear").array
  top = np.sort(shares, axis=0)
  clear = top[-1] - top[-2] > 1e-5
  assert clear.mean() > 0.9
  np.testing.assert_array_equal(result[clear], values[shares.argmax(axis=0)][clear])


def test_onehot_ties_go_to_the_lower_label():
  at = make_grid((2, 1, 1), (1, 1, 1))
  target = working_grid(at, (2, 1, 1))  # one voxel, half way between the two
  for pair in ([1, 3], [3, 1]):
    labels = Volume(np.array(pair, np.uint8).reshape(2, 1, 1), at.affine)
    assert resample_labels(labels, target, "onehot_linear").array.item() == 1


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("spacing", WORKING)
def test_probabilities_to_labels_is_the_argmax_of_interpolated_channels(classes, spacing):
  native = make_grid(degrees=12)
  working = working_grid(native, spacing)
  values = np.random.default_rng(4).random((*working.shape, classes))
  probabilities = (values / values.sum(axis=-1, keepdims=True)).astype(np.float32)
  result = probabilities_to_labels(probabilities, working, native)
  at = source_positions(working, native)
  channels = np.stack(
    [
      ndimage.map_coordinates(probabilities[..., k].astype(float), at, order=1, mode="nearest")
      for k in range(classes)
    ]
  )
  top = np.sort(channels, axis=0)
  clear = top[-1] - top[-2] > 1e-4
  assert clear.mean() > 0.98
  assert result.array.dtype == np.uint8
  np.testing.assert_array_equal(result.array[clear], channels.argmax(axis=0)[clear])
  np.testing.assert_array_equal(result.affine, native.affine)


def test_probabilities_on_the_same_grid_are_only_compared():
  native = make_grid()
  probabilities = np.random.default_rng(5).random((*native.shape, 3)).astype(np.float32)
  probabilities[0, 0, 0] = 0.5  # a tie goes to the lower class
  result = probabilities_to_labels(probabilities, working_grid(native, native.spacing), native)
  np.testing.assert_array_equal(result.array, probabilities.argmax(axis=-1))


@pytest.mark.parametrize(
  ("shape", "message"),
  [((3, 3, 3, 2), "are not"), ((*SHAPE, 1), "1 classes"), (SHAPE, "are not")],
)
def test_probabilities_must_fit(shape, message):
  with pytest.raises(ValueError, match=message):
    probabilities_to_labels(np.zeros(shape, np.float32), make_grid(), make_grid())


def test_the_way_back_never_holds_all_channels():
  native = make_grid((160, 150, 60), (0.8, 0.8, 1.0))
  working = working_grid(native, 3.0)
  probabilities = np.random.default_rng(6).random((*working.shape, 8)).astype(np.float32)
  tracemalloc.start()
  probabilities_to_labels(probabilities, working, native)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  voxels = np.prod(native.shape)
  assert peak < 5 * voxels  # all channels in float32 would be 32 bytes a voxel


@pytest.mark.parametrize(("spacing", "least"), [(1.0, 0.97), (2.0, 0.93)])
@pytest.mark.parametrize("method", ["balanced", "nearest", "onehot_linear"])
def test_a_sphere_comes_back(spacing, least, method):
  native = make_grid((80, 70, 40), (0.8, 0.8, 1.5))
  labels = Volume(make_sphere(native.shape, native.spacing, 20), native.affine)
  down = resample_labels(labels, working_grid(native, spacing), method)
  back = resample_volume(down, native, order="nearest")
  smooth = probabilities_to_labels(
    np.stack([1.0 - down.array, down.array], axis=-1).astype(np.float32), down.grid, native
  )
  assert dice(back.array, labels.array) > least
  assert dice(smooth.array, labels.array) > least


def test_blur_has_the_set_width_in_mm():
  at = make_grid((41, 41, 21), (0.5, 0.8, 1.0))
  impulse = np.zeros(at.shape, np.int16)
  impulse[20, 20, 10] = 10000
  blurred = gaussian_blur(Volume(impulse, at.affine), 1.2).array
  assert blurred.dtype == np.float32
  mass = blurred.astype(float) / blurred.sum()
  for axis, spacing in enumerate(at.spacing):
    profile = mass.sum(axis=tuple(a for a in range(3) if a != axis))
    place = (np.arange(at.shape[axis]) - at.shape[axis] // 2) * spacing
    assert np.sqrt(np.sum(profile * place**2)) == pytest.approx(1.2, rel=0.01)
