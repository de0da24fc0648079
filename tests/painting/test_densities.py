"""The densities that a painting draws: their means and spreads over many keys."""

from functools import cache

import jax
import numpy as np
import pytest

from attn_unet_jax.painting.densities import draw_densities
from attn_unet_jax.painting.look import draw_look
from attn_unet_jax.painting.materials import (
  CONTENTS,
  DUCT,
  FIRST_CONTENT,
  HOLLOW,
  LAYERS,
  LESION,
  LOOP_CONTENT,
  LOOP_WALL,
  NUM_MATERIALS,
  STRETCHES,
  VESSEL,
  VISCERAL_FAT,
)
from attn_unet_jax.painting.options import Painting
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.abdomen.tissues import PHASES, TISSUES

WINDOW = (-160.0, 240.0)


@cache
def draw_many(painting):
  def draw(key):
    look_key, density_key = jax.random.split(key)
    look = draw_look(look_key, painting)
    return look, draw_densities(density_key, look, painting, WINDOW)

  keys = jax.random.split(jax.random.key(0), 2000)
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))


PRIOR = Painting(free_tissues=0.0, spread=1.0)


def test_every_setting_of_the_scan_fills_its_range_uniformly():
  look, _ = draw_many(PRIOR)
  for name, drawn in look._asdict().items():
    low, high = getattr(PRIOR, name, (0.0, 1.0))
    assert low <= drawn.min() <= drawn.max() <= high + 1e-6
    assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    assert drawn.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)
  correlated = np.corrcoef(np.array(look))
  assert np.abs(correlated - np.eye(len(look))).max() < 0.1


@pytest.mark.parametrize("organ", ["liver", "pancreas", "aorta", "muscle"])
def test_means_lie_about_those_of_the_contrast_phases(organ):
  drawn = draw_many(PRIOR)[1].mean[:, ALL_ORGANS[organ]]
  hu = np.array(TISSUES[organ].hu)
  shares = np.array(list(PHASES.values()))
  # Half of the way to a phase that is drawn from all alike, on the mean.
  expected = (shares / 2 + 1 / 6) @ hu[:, 0]
  assert drawn.mean() == pytest.approx(expected, abs=0.1 * np.ptp(hu[:, 0]) + 1)
  # The sd within phases at least, and none further from all of them than four sd.
  assert drawn.std() > 0.7 * hu[:, 1].min()
  assert drawn.min() > (hu[:, 0] - 4.5 * hu[:, 1]).min()
  assert drawn.max() < (hu[:, 0] + 4.5 * hu[:, 1]).max()


def test_pairs_have_one_density_and_air_is_air():
  mean = draw_many(Painting())[1].mean
  np.testing.assert_array_equal(
    mean[:, ALL_ORGANS["kidney_left"]], mean[:, ALL_ORGANS["kidney_right"]]
  )
  assert (mean[:, ALL_ORGANS["background"]] == -1000).all()
  assert mean.shape == (2000, NUM_MATERIALS)


def test_the_free_share_of_a_tissue_is_uniform_over_the_window():
  free = draw_many(Painting(free_tissues=1.0))[1].mean[:, ALL_ORGANS["bone"]]
  assert WINDOW[0] <= free.min() <= free.max() <= WINDOW[1]
  assert np.histogram(free, 4, WINDOW)[0] / 2000 == pytest.approx([0.25] * 4, abs=0.04)
  # Fat is never above -50 HU by the table.
  some = draw_many(Painting(free_tissues=0.4))[1].mean[:, ALL_ORGANS["fat"]]
  assert np.mean(some > -50) == pytest.approx(0.4 * 290 / 400, abs=0.04)


def test_hollow_organs_hold_gas_above_the_rest():
  mean = draw_many(PRIOR)[1].mean[:, FIRST_CONTENT:VISCERAL_FAT]
  contents = mean.reshape(2000, len(HOLLOW), STRETCHES, LAYERS)
  is_gas = contents < -900
  assert (np.diff(is_gas.astype(int), axis=-1) >= 0).all()
  share = is_gas.mean((0, 2, 3))
  assert share == pytest.approx((1 - CONTENTS.collapsed) * CONTENTS.gas, abs=0.06)
  stretches = contents[:, 0, :, 0]
  assert (stretches[:, 0] != stretches[:, 1]).mean() > 0.9


def test_tumours_lie_about_the_pancreas_and_a_quarter_are_cysts():
  mean = draw_many(PRIOR)[1].mean
  difference = mean[:, LESION] - mean[:, ALL_ORGANS["pancreas"]]
  is_cyst = (mean[:, LESION] >= 5) & (mean[:, LESION] <= 35) & (difference < -45)
  assert is_cyst.mean() == pytest.approx(0.25, abs=0.06)
  assert difference[~is_cyst].mean() == pytest.approx(-12, abs=3)
  assert difference[~is_cyst].std() == pytest.approx(22, rel=0.15)


def test_what_no_map_names_has_the_density_of_its_like():
  mean = draw_many(PRIOR)[1].mean
  fat, bowel, vein = (
    mean[:, ALL_ORGANS[name]] for name in ("fat", "small_bowel", "portal_splenic_vein")
  )
  haze = mean[:, VISCERAL_FAT] - fat
  assert 0 <= haze.min() <= haze.max() <= 35
  assert haze.mean() == pytest.approx(17.5, abs=1)
  assert ((mean[:, LOOP_WALL] <= bowel) & (mean[:, LOOP_WALL] >= bowel - 70)).all()
  assert ((mean[:, LOOP_CONTENT] >= 15) & (mean[:, LOOP_CONTENT] <= 60)).all()
  np.testing.assert_array_equal(mean[:, VESSEL], vein)
  assert (mean[:, DUCT] == 12).all()
