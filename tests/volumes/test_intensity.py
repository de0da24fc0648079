import numpy as np
import pytest

from attn_unet_jax.volumes.intensity import measure_intensity, measure_quantiles


def test_by_hand():
  array = np.array([[[-1000, 0], [40, 60]]], np.int16)
  mean, sd = measure_intensity(array)
  assert mean == -225.0
  assert sd == pytest.approx(np.sqrt((775**2 + 225**2 + 265**2 + 285**2) / 4))


def test_a_large_offset_does_not_cancel():
  array = np.float32(30000) + np.random.default_rng(0).normal(size=(64, 64, 16)).astype(np.float32)
  wide = array.astype(np.longdouble)
  assert measure_intensity(array).sd == pytest.approx(float(wide.std()), rel=1e-9)
  assert measure_intensity(array).mean == pytest.approx(float(wide.mean()), rel=1e-12)


def test_the_memory_layout_does_not_change_a_bit():
  array = np.random.default_rng(1).normal(size=(30, 40, 50)).astype(np.float32)
  other = np.ascontiguousarray(array[::-1])[::-1]
  assert (
    measure_intensity(np.asfortranarray(array))
    == measure_intensity(array)
    == measure_intensity(other)
  )


@pytest.mark.parametrize("kind", [np.int16, np.uint8])
def test_quantiles_are_numpys(kind):
  """Ties, one voxel, the whole range of the type, more levels than voxels."""
  rng, ends = np.random.default_rng(0), np.iinfo(kind)
  for shape, count in (((5, 6, 7), 9), ((1, 1, 1), 4), ((2, 2, 3), 40)):
    array = rng.integers(0, 50, shape).astype(kind)
    array.flat[[0, -1]] = ends.min, ends.max
    expected = np.quantile(array.astype(float), np.linspace(0, 1, count))
    np.testing.assert_allclose(measure_quantiles(array, count), expected, rtol=1e-6)
