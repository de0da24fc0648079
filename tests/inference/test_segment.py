"""A scan's mask lies on the scan's own grid, and does not depend on how the file stores it."""

import tracemalloc
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen as nn
from scipy import ndimage

from attn_unet_jax.inference.segment import predict_scan, segment_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import box_from_slices
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Grid, Volume
from benchmarks.orientations import on_axes, turn_axes
from tests.configs import with_keys


class _Threshold:
  """A system that needs no training: the probability rises with HU."""

  def predict(self, volume):
    assert volume.orientation == "RAS"
    foreground = 1 / (1 + np.exp(-(volume.array.astype(np.float32) - 100) / 50))
    return np.stack([1 - foreground, foreground], -1)


@pytest.fixture
def scan():
  rng = np.random.default_rng(0)
  smooth = ndimage.gaussian_filter(rng.normal(0, 1, (24, 20, 18)), 2)
  hu = (smooth / smooth.std() * 150).astype(np.int16)
  return Volume(hu, np.diag([1.5, 2.0, 2.5, 1.0]))


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_the_same_mask_from_every_orientation(config, scan, spacing):
  config = with_keys(config, {"data.spacing_mm": spacing})
  reference = segment_scan(scan, _Threshold(), config).mask
  np.testing.assert_array_equal(reference.affine, scan.affine)
  assert reference.array.dtype == np.uint8
  assert 0.02 < reference.array.mean() < 0.5
  for other in (on_axes(scan, "LPS"), on_axes(scan, "SRA"), turn_axes(scan)):
    mask = segment_scan(other, _Threshold(), config).mask
    assert mask.shape == other.shape
    np.testing.assert_array_equal(mask.affine, other.affine)
    np.testing.assert_array_equal(to_canonical(mask).array, reference.array)


@pytest.mark.parametrize("spacing", [2.0, 3.0])
def test_a_mask_of_a_tilted_gantry_lies_on_the_tilted_slices(config, spacing):
  """A ball of 60 mm, whose volume is known, on slices that lie sideways of one another."""
  affine = np.diag([1.5, 1.5, 3.0, 1.0])
  affine[1, 2] = 3 * np.tan(np.radians(20))
  grid = Grid((60, 60, 30), affine)
  distance = np.linalg.norm(place_voxels(grid) - grid.centre_mm, axis=-1)
  hu = np.rint(np.clip(100 + 20 * (30 - distance), -100, 300)).astype(np.int16)  # surface: 100
  config = with_keys(config, {"data.spacing_mm": spacing})
  for scan in (Volume(hu, affine), on_axes(Volume(hu, affine), "SPL")):
    mask = segment_scan(scan, _Threshold(), config).mask
    np.testing.assert_array_equal(mask.affine, scan.affine)
    volume = mask.array.sum() * mask.voxel_volume_ml
    assert volume == pytest.approx(4 / 3 * np.pi * 3**3, rel=0.005)
    wanted = np.linalg.norm(place_voxels(scan.grid) - grid.centre_mm, axis=-1) < 30
    assert 2 * (wanted & (mask.array == 1)).sum() / (wanted.sum() + mask.array.sum()) > 0.98


def test_the_network_sees_a_tilted_scan_on_straight_axes(config):
  affine = np.diag([1.5, 1.5, 3.0, 1.0])
  affine[1, 2] = 3 * np.tan(np.radians(20))
  seen = []
  system = SimpleNamespace(
    predict=lambda volume: (seen.append(volume), _Threshold().predict(volume))[1]
  )
  segment_scan(Volume(np.zeros((20, 20, 12), np.int16), affine), system, config)
  axes = seen[0].grid.directions
  np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def place_voxels(grid):
  """The place of every voxel in mm, [X, Y, Z, 3]."""
  index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
  return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def test_a_scan_that_no_memory_holds_is_named(config, scan):
  vast = Volume(scan.array, np.diag([1e7, 1e7, 1e7, 1.0]))
  with pytest.raises(UserError, match=r"ct.nii: voxels of 10 mm in its field of 2.4e\+08 x"):
    segment_scan(vast, _Threshold(), config, name="ct.nii")


class _Logits(nn.Module):
  """A network that costs nothing."""

  num_classes: int
  patch_multiple: tuple[int, int, int] = (1, 1, 1)
  output_margin: tuple[int, int, int] = (0, 0, 0)

  @nn.compact
  def __call__(self, image, train):
    return nn.Dense(self.num_classes)(image), {}


@pytest.mark.parametrize("within_body", [False, True])
@pytest.mark.parametrize("labels", ["a=1", "a=1,b=2,c=3,d=4"])
def test_what_is_asked_of_memory_is_what_a_scan_takes(config, monkeypatch, labels, within_body):
  config = with_keys(
    config,
    {
      "data.labels": labels,
      "data.spacing_mm": 1.0,
      "data.patch": (32, 32, 32),
      "inference.within_body": within_body,
    },
  )
  scan = Volume(np.arange(40 * 36 * 30, dtype=np.int16).reshape(40, 36, 30), np.diag([4, 4, 4, 1]))
  module = _Logits(1 + len(labels.split(",")))
  variables = module.init(jax.random.key(0), np.zeros((1, 32, 32, 32, 1), np.float32), False)
  system = SlidingWindow(config, module).use(variables)
  segment_scan(Volume(scan.array[:9, :9, :9], scan.affine), system, config)  # compiled
  asked = []
  monkeypatch.setattr(memory, "require_memory", lambda needed, *_: asked.append(needed))
  tracemalloc.start()
  segment_scan(scan, system, config)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert asked[0] <= peak < 1.1 * asked[0]


def test_on_the_native_grid_it_is_the_systems_own_answer(config, scan):
  config = with_keys(config, {"data.spacing_mm": 2.0})
  isotropic = Volume(scan.array, np.diag([2.0, 2.0, 2.0, 1.0]))
  mask = segment_scan(isotropic, _Threshold(), config).mask
  np.testing.assert_array_equal(mask.array, scan.array > 100)


def test_probabilities_are_interpolated_and_not_their_answer(config):
  """Two voxels of 4 mm on four of 2 mm: 0.6, 0.45, 0.15 and 0."""
  foreground = np.array([0.6, 0.0], np.float32)[:, None, None]
  system = SimpleNamespace(predict=lambda volume: np.stack([1 - foreground, foreground], -1))
  scan = Volume(np.zeros((4, 1, 1), np.int16), np.diag([2.0, 4.0, 4.0, 1.0]))
  config = with_keys(config, {"data.spacing_mm": 4.0})
  assert segment_scan(scan, system, config).mask.array.ravel().tolist() == [1, 0, 0, 0]


def test_the_largest_piece_alone_if_so_configured_from_every_orientation(config):
  """A rod of 9 voxels, a smaller one of 8 and, by an edge of the rod, a voxel that hangs on."""
  hu = np.full((12, 10, 8), -1000, np.int16)
  hu[1:10, 2, 2] = 300
  hu[10, 3, 2] = 300
  hu[3:11, 7, 6] = 300
  scan = Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0]))
  config = with_keys(config, {"data.spacing_mm": 2.0})
  np.testing.assert_array_equal(segment_scan(scan, _Threshold(), config).mask.array, hu > 100)
  config = with_keys(config, {"inference.largest_component": True})
  rod = np.zeros(hu.shape, bool)
  rod[1:10, 2, 2] = True
  for stored in (scan, on_axes(scan, "LPS"), on_axes(scan, "SRA")):
    mask = segment_scan(stored, _Threshold(), config).mask
    np.testing.assert_array_equal(to_canonical(mask).array, rod)


def test_some_classes_are_one_piece_and_others_are_not(config):
  hu = np.full((12, 10, 8), -1000, np.int16)
  hu[1:6, 2, 2] = hu[8, 2, 2] = 300
  hu[1:6, 6, 6] = hu[8, 6, 6] = 600
  scan = Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0]))
  p = np.stack([hu < 0, hu == 300, hu == 600], -1).astype(np.float32)
  system = SimpleNamespace(predict=lambda volume: p)
  keys = {"data.spacing_mm": 2.0, "data.labels": "liver=1,kidney=2"}
  config = with_keys(config, {**keys, "inference.one_piece": "liver"})
  expected = p.argmax(-1)
  expected[8, 2, 2] = 0
  np.testing.assert_array_equal(segment_scan(scan, system, config).mask.array, expected)


@pytest.mark.parametrize(
  ("probabilities", "kept"),
  [
    ((0.69, 0.9), "small"),  # 5 times log(0.69 / 0.31) = 0.80 against 2 times log 9 = 2.20
    ((0.71, 0.9), "large"),  # 5 times 0.90
    ((0.94, 1.0), "small"),  # 5 times 2.75 against 2 times 13.8, which certainty counts
    ((0.45, 0.5), "large"),  # of three classes; none is above a half, so that voxels count
  ],
)
def test_of_one_piece_that_is_kept_of_which_the_network_is_surest(config, probabilities, kept):
  liver, other = np.zeros((2, 12, 8, 8), np.float32)
  pieces = {"large": np.s_[1:6, 2, 2], "small": np.s_[8:10, 5, 5]}
  for where, p in zip(pieces.values(), probabilities, strict=True):
    liver[where], other[where] = p, (1 - p) / 2
  system = SimpleNamespace(predict=lambda _: np.stack([1 - liver - other, liver, other], -1))
  scan = Volume(np.zeros(liver.shape, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
  keys = {"data.spacing_mm": 2.0, "data.labels": "liver=1,kidney=2"}
  config = with_keys(config, {**keys, "inference.one_piece": "liver"})
  expected = np.zeros(liver.shape, bool)
  expected[pieces[kept]] = True
  np.testing.assert_array_equal(segment_scan(scan, system, config).mask.array, expected)


def test_the_piece_is_one_on_the_scans_own_grid(config):
  """Two blocks that a voxel of 2 mm joins: a grid of 4 mm does not see it."""
  working = np.zeros((16, 8, 8), np.float32)
  working[2:6, 2:6, 2:6] = working[10:14, 2:6, 2:4] = working[6:10, 2, 2] = 1
  system = SimpleNamespace(predict=lambda volume: np.stack([1 - working, working], -1))
  scan = Volume(np.zeros((8, 4, 4), np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
  config = with_keys(config, {"data.spacing_mm": 2.0})
  assert ndimage.label(working)[1] == 1
  assert ndimage.label(segment_scan(scan, system, config).mask.array)[1] == 2
  config = with_keys(config, {"inference.largest_component": True})
  expected = np.zeros(scan.shape, bool)
  expected[1:3, 1:3, 1:3] = True
  np.testing.assert_array_equal(segment_scan(scan, system, config).mask.array, expected)


def lying_patient():
  """A scan, HU at 3 mm, of a body of 108 x 90 mm above a hollow table, and the body's voxels."""
  hu = np.full((60, 60, 6), -1000, np.int16)
  body = np.zeros(hu.shape, bool)
  body[12:48, 22:52] = True
  hu[body] = 40
  hu[24:28, 40:46] = -950  # gas in the stomach
  hu[6:54, 4:14] = 200
  hu[7:53, 5:13] = -980
  return Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0])), body


def say_stomach_in_air(volume):
  """Two pieces of class 1, of which that in the table is the larger and surer one."""
  p = np.zeros((*volume.shape, 2), np.float32)
  p[22:30, 38:48, :, 1] = 0.8  # gas and the wall around it
  p[6:54, 4:20, :, 1] = 0.95
  p[..., 0] = 1 - p[..., 1]
  return p


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_the_piece_that_is_kept_lies_within_the_body(config, axes):
  image, body = lying_patient()
  keys = {"data.spacing_mm": 3.0, "data.labels": "stomach=1", "inference.one_piece": "stomach"}
  config = with_keys(config, keys)
  system = SimpleNamespace(predict=say_stomach_in_air)
  said = say_stomach_in_air(image)[..., 1]
  scan = on_axes(image, axes)
  mask = segment_scan(scan, system, config).mask
  np.testing.assert_array_equal(to_canonical(mask).array, said > 0.9)
  config = with_keys(config, {"inference.within_body": True})
  found = segment_scan(scan, system, config).mask
  np.testing.assert_array_equal(to_canonical(found).array, (said > 0.5) & body)
  assert found.array.any()


def test_outside_the_body_all_probability_is_that_of_the_background(config):
  image, body = lying_patient()
  config = with_keys(config, {"data.spacing_mm": 3.0, "inference.within_body": True})
  said = np.random.default_rng(0).dirichlet([1, 1, 1], image.shape).astype(np.float32)
  system = SimpleNamespace(predict=lambda _: said.copy())
  values = predict_scan(image, system, config).values
  np.testing.assert_array_equal(values[body], said[body])
  assert (values[~body] == [1, 0, 0]).all()


def test_the_body_is_that_of_the_scan_and_not_of_the_box(config):
  """A box around the stomach, whose gas reaches a side of it."""
  image, body = lying_patient()
  box = box_from_slices((slice(24, 28), slice(10, 46), slice(0, 6)), image.grid)
  keys = {"data.spacing_mm": 3.0, "data.patch": (4, 4, 4), "inference.within_body": True}
  system = SimpleNamespace(predict=lambda part: np.full((*part.shape, 2), [0.1, 0.9], np.float32))
  mask = segment_scan(image, system, with_keys(config, keys), lambda working: box).mask
  expected = np.zeros(image.shape, bool)
  expected[24:28, 22:46] = True
  np.testing.assert_array_equal(mask.array, expected & body)


def test_outside_the_box_is_background(config, scan):
  config = with_keys(config, {"data.spacing_mm": 2.0, "data.patch": (4, 4, 4)})
  isotropic = Volume(scan.array, np.diag([2.0, 2.0, 2.0, 1.0]))
  where = (slice(3, 20), slice(5, 12), slice(2, 9))
  box = box_from_slices(where, isotropic.grid)
  expected = np.zeros(scan.shape, bool)
  expected[where] = scan.array[where] > 100
  found = segment_scan(isotropic, _Threshold(), config, lambda working: box)
  assert found.box == box
  np.testing.assert_array_equal(found.mask.array, expected)
  turned_back = segment_scan(
    on_axes(isotropic, "LSP"), _Threshold(), config, lambda working: box
  ).mask
  np.testing.assert_array_equal(to_canonical(turned_back).array, expected)


def test_a_box_smaller_than_the_patch_is_looked_at_with_its_surroundings(config, scan):
  config = with_keys(config, {"data.spacing_mm": 2.0, "data.patch": (30, 8, 8)})
  isotropic = Volume(scan.array, np.diag([2.0, 2.0, 2.0, 1.0]))
  box = box_from_slices((slice(3, 5), slice(8, 10), slice(4, 6)), isotropic.grid)
  mask = segment_scan(isotropic, _Threshold(), config, lambda working: box).mask
  expected = np.zeros(scan.shape, bool)
  expected[:, 5:13, 1:9] = (scan.array > 100)[:, 5:13, 1:9]
  np.testing.assert_array_equal(mask.array, expected)
