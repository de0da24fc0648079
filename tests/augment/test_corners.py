"""The affine map of moved corners: a least-squares fit that stays within its stated reach."""

import itertools

import jax
import numpy as np
import pytest

from attn_unet_jax.augment.affine import draw_corner_matrix, draw_spatial_matrix
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import source_shape

PATCH = (9, 5, 7)
HALF = (np.array(PATCH) - 1) / 2
CORNERS = np.array(list(itertools.product((-1, 1), repeat=3)))


def test_the_map_is_the_least_squares_fit_of_the_moved_corners():
  key = jax.random.key(3)
  factors = np.asarray(jax.random.uniform(key, (8, 3), minval=0.6, maxval=1))
  design = np.column_stack([CORNERS * HALF, np.ones(8)])
  fit, *_ = np.linalg.lstsq(design, CORNERS * HALF * factors, rcond=None)
  np.testing.assert_allclose(draw_corner_matrix(key, PATCH, 0.4), fit.T, atol=1e-5)
  np.testing.assert_allclose(draw_corner_matrix(key, PATCH, 0.0), np.eye(3, 4), atol=1e-6)


@pytest.mark.parametrize("others", [{}, {"rotate_deg": (0.0, 0.0, 20.0), "scale": (0.9, 1.2)}])
def test_no_corner_leaves_the_block(others):
  augmentation = Augmentation(corner_scale=0.4, **others)
  assert augmentation.warps
  room = (np.array(source_shape(PATCH, augmentation)) - 1) / 2
  keys = jax.random.split(jax.random.key(0), 2000)
  draw = jax.jit(jax.vmap(lambda key: draw_spatial_matrix(key, PATCH, augmentation)))
  matrices = np.asarray(draw(keys))
  reached = np.abs(matrices[:, :, :3] @ (CORNERS * HALF).T + matrices[:, :, 3:]).max((0, 2))
  assert np.all(reached <= room + 1e-3)
  assert np.all(reached > HALF)  # some corner does leave the patch
  if not others:  # the composed map is that of the corners alone
    alone = draw_corner_matrix(jax.random.fold_in(keys[0], 4), PATCH, 0.4)
    np.testing.assert_allclose(matrices[0], alone, atol=1e-5)


def test_the_block_is_as_large_as_the_furthest_fit_needs():
  """By trying all corners at either end of their range; axes are fitted apart from each other."""
  scale, patch = 0.4, (81, 61, 41)
  factors = np.array(list(itertools.product((1 - scale, 1), repeat=8)))  # of one coordinate
  design = np.column_stack([CORNERS, np.ones(8)])
  furthest = 0
  for axis in range(3):
    fits = np.linalg.lstsq(design, (factors * CORNERS[:, axis]).T, rcond=None)[0]
    furthest = max(furthest, np.abs(design @ fits).max())
  margins = [int(np.ceil((n - 1) / 2 * (furthest - 1) - 1e-3)) for n in patch]
  needed = tuple(n + 2 * margin for n, margin in zip(patch, margins, strict=True))
  assert source_shape(patch, Augmentation(corner_scale=scale)) == needed == (89, 67, 45)


def test_a_corner_does_not_cross_the_centre():
  with pytest.raises(ValueError, match=r"corner_scale=1\.0: must be .*below 1"):
    Augmentation(corner_scale=1.0)
