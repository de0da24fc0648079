"""A painted patch: what decides it, and what it shows."""

from functools import cache

import jax
import numpy as np
import pytest

from attn_unet_jax.painting.look import ScanLook
from attn_unet_jax.painting.options import Painting
from attn_unet_jax.painting.patch import paint_scan
from tfds_pancreas.abdomen.organs import ORGANS

WINDOW = (-160.0, 240.0)
# A portal venous scan without anything that varies within an organ or blurs it.
PLAIN = ScanLook(
  phase=0.9, towards=0.9, between=0.0, drunk=0.9, slice_phase=0.0, fat=0.0, texture=0.0,
  blur_mm=0.0, slice_mm=1.0, noise_hu=0.0, noise_grain_mm=1.0, gamma=1.0, contrast=1.0,
)  # fmt: skip
KEYS = jax.random.split(jax.random.key(0), 12)


@cache
def compiled():
  materials = np.full((16, 16, 16), ORGANS["liver"], np.uint8)
  materials[:8] = ORGANS["pancreas"]
  painting = Painting(free_tissues=0.0)

  def paint_one(key, look):
    return paint_scan(key, materials, look, painting, WINDOW, 2.0)

  return jax.jit(lambda look: jax.lax.map(lambda key: paint_one(key, look), KEYS))


def paint(**changes):
  return np.asarray(compiled()(PLAIN._replace(**changes)))


def test_the_key_decides_every_bit():
  image = paint(noise_hu=5.0, texture=1.0)
  np.testing.assert_array_equal(image, paint(noise_hu=5.0, texture=1.0))
  assert len({patch.tobytes() for patch in image}) == len(KEYS)
  assert image.dtype == np.float32
  assert np.isfinite(image).all()


def test_without_texture_blur_and_noise_an_organ_is_constant():
  image = paint()
  assert image[:, :5].std((1, 2, 3)).max() < 1e-2
  assert image[:, 11:].std((1, 2, 3)).max() < 1e-2
  assert np.abs(image[:, 0] - image[:, -1]).mean() > 5


def test_noise_and_texture_have_the_sd_that_is_asked_for():
  noise = (paint(noise_hu=20.0) - paint())[:, 2:-2, 2:-2, 2:-2]
  assert noise.std() == pytest.approx(20, rel=0.1)
  beside = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
  assert 0.1 < beside < 0.9  # neighbours share it
  textured = paint(texture=1.0)[:, 10:]
  spread = (textured - textured.mean((1, 2, 3), keepdims=True)).std()
  assert 2 < spread < 7  # of 4 and 5 HU, some of it lost to the voxel's extent


def test_blur_and_thick_slices_soften_edges_along_their_axes():
  step = np.abs(np.diff(paint(), axis=1)).max(1)
  blurred = np.abs(np.diff(paint(blur_mm=4.0), axis=1)).max(1)
  assert (blurred < 0.6 * step + 1e-2).all()
  # The edge lies across X.
  np.testing.assert_allclose(paint(slice_mm=8.0), paint(), atol=0.01)


def test_noise_is_as_coarse_along_z_as_slices_are_thick():
  thin, thick = (paint(noise_hu=20.0, noise_grain_mm=0.0, slice_mm=mm) for mm in (1.0, 8.0))
  along = [np.abs(np.diff(image, axis=3)).mean() for image in (thin, thick)]
  assert along[1] < 0.5 * along[0]
  assert (thick - paint()).std() == pytest.approx(20, rel=0.15)


def test_fat_lowers_the_pancreas_alone():
  lean, fatty = paint(), paint(fat=0.5)
  np.testing.assert_allclose(fatty[:, 12:], lean[:, 12:], atol=0.5)
  expected = (lean[:, :6].mean() - 103) / 2
  assert fatty[:, :6].mean() == pytest.approx(expected, abs=12)
  assert fatty[:, :6].std((1, 2, 3)).min() > 15


def test_values_are_those_of_a_scanner():
  image = paint(noise_hu=5000.0)
  assert (image.min(), image.max()) == (-1024, 3071)
