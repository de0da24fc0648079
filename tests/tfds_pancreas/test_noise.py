import numpy as np

from tfds_pancreas.abdomen.noise import draw_smooth_noise


def draw_field(length, seed=0):
  return draw_smooth_noise(np.random.default_rng(seed), (60, 50, 40), (2.0, 2.0, 3.0), length)


def test_unit_variance_and_zero_mean():
  noise = np.stack([draw_field(12.0, seed) for seed in range(4)])
  assert abs(noise.mean()) < 0.1
  assert abs(noise.std() - 1) < 0.1


def test_the_correlation_is_as_long_as_asked():
  noise = draw_field(20.0)
  near = np.mean(noise[:-1] * noise[1:]) / np.mean(noise**2)  # 2 mm apart
  far = np.mean(noise[:-30] * noise[30:]) / np.mean(noise**2)  # 60 mm apart
  assert near > 0.95
  assert abs(far) < 0.3


def test_knots_never_lie_closer_than_the_voxels():
  assert draw_field(0.1).shape == (60, 50, 40)
