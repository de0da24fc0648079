import numpy as np
import pytest

from attn_unet_jax.stages.features import COUNT, measure_features


def _slow(segments, maps, spacing):
  rows = []
  for number in range(segments.max() + 1):
    where = segments == number
    row = []
    for values in maps:
      inside = values[where].astype(np.float64)
      row += [inside.mean(), inside.std(), *np.percentile(inside, range(20, 81, 10))]
    places = np.argwhere(where) + 0.5
    row += [*(places.mean(0) / segments.shape), where.sum() * spacing * spacing]
    rows.append(row)
  return np.array(rows)


def test_against_a_slow_loop():
  rng = np.random.default_rng(0)
  segments = np.concatenate([np.arange(40), rng.integers(0, 40, 9 * 8 * 7 - 40)])
  segments = rng.permutation(segments).reshape(9, 8, 7).astype(np.int32)
  maps = [rng.integers(-160, 240, segments.shape).astype(np.int16), *rng.random((2, 9, 8, 7))]
  found = measure_features(segments, maps, 2.0)
  assert found.shape == (40, 31) == (40, COUNT)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, _slow(segments, maps, 2.0), rtol=1e-5, atol=1e-5)


def test_by_hand():
  """Values 0, 10 .. 100 in one superpixel; the other is a single voxel."""
  segments = np.zeros((12, 1, 1), np.int32)
  segments[11] = 1
  values = np.arange(12).reshape(12, 1, 1) * 10
  found = measure_features(segments, [values] * 3, 3.0)
  assert found[0, 0] == 50
  assert found[0, 1] == pytest.approx(np.sqrt(1000), rel=1e-6)
  assert found[0, 2:9].tolist() == [20, 30, 40, 50, 60, 70, 80]
  assert found[0, 27:].tolist() == pytest.approx([5.5 / 12, 0.5, 0.5, 99])
  assert found[1, :9].tolist() == [110, 0] + [110] * 7
