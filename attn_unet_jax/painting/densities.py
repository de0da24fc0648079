"""Random densities: the mean of every material in one patch, and its variation within it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from attn_unet_jax.painting.look import ScanLook
from attn_unet_jax.painting.materials import CONTENTS, LAYERS, ORGANS, PHASE_SHARES, STRETCHES
from attn_unet_jax.painting.options import Painting, Range
from tfds_pancreas.abdomen.hollow import CONTRAST
from tfds_pancreas.abdomen.organs import ALL_ORGANS

_GAS_HU = -980.0
_DRUNK = 0.25  # share of patients who have drunk contrast agent
# The squares add up to 1, so that the sd between patients is that of the table.
_COMMON, _OWN = 0.6, 0.8
_CONTENT_SLOW = 10.0
# Of what no map names, in the order of `materials`: visceral fat, wall and content of loops,
# vessels, tumour, duct.
_UNNAMED_SLOW = np.array([8, 12, 15, 5, 8, 3], np.float32)
_UNNAMED_FINE = np.array([12, 9, 10, 5, 10, 3], np.float32)
# Within the masks of 25 patients of the Medical Segmentation Decathlon's Task07, the tumour's
# median lay from 95 HU below to 34 above the pancreas's (5 and 95 %), on the median 13 below; five
# of them were cysts of 20 to 31 HU.
_CYSTS, _CYST_HU = 0.25, (5.0, 35.0)
_TUMOUR_HU = (-12.0, 22.0)  # from the pancreas, mean and sd
_HAZE_HU = 35.0  # by which strands and small vessels raise fat between the viscera, at most
_LOOP_HU = (15.0, 60.0)  # content of loops
_BELOW_WALL_HU = 70.0  # a collapsed loop lies below the enhanced wall by so much, at most
_DUCT_HU = 12.0


class Densities(NamedTuple):
  """HU of the materials in one patch, arrays `[M]` over their numbers.

  Attributes:
    mean: of the material.
    slow: sd of what varies over some 30 mm.
    fine: sd of what varies over some 5 mm.
  """

  mean: Array
  slow: Array
  fine: Array


def draw_densities(key: Array, look: ScanLook, painting: Painting, window_hu: Range) -> Densities:
  """Draws the densities of one patient.

  Args:
    key: random key.
    look: of the scan: its contrast phase, and the strength of textures.
    painting: how far means may vary.
    window_hu: the range of a mean that is drawn freely.
  """
  normal_key, uniform_key = jax.random.split(key)
  n, places = len(ORGANS.patient), (len(CONTENTS.organ), STRETCHES)
  deviation = jax.random.normal(normal_key, (n + 1,))
  # One draw for all: each draw of its own is a program of its own, and takes seconds to compile.
  drawn = jax.random.uniform(uniform_key, (2 * n + 3 * places[0] * places[1],))
  organs = _mix_phases(look, deviation, painting.spread)
  free = window_hu[0] + (window_hu[1] - window_hu[0]) * drawn[:n]
  # Air has its density in every scan.
  is_free = (drawn[n : 2 * n] < painting.free_tissues)[ORGANS.patient] & ~ORGANS.is_known
  organs = jnp.where(is_free, free[ORGANS.patient], organs)
  contents, is_gas = _fill_contents(look, organs, drawn[2 * n :].reshape(3, *places))
  # Gas has no texture.
  fine = jnp.where(is_gas, 0, CONTENTS.fine[:, None, None])
  slow = jnp.where(is_gas, 0, _CONTENT_SLOW)
  # A key of its own: what maps name keeps its draws.
  unnamed = _draw_unnamed(jax.random.fold_in(key, 1), organs)
  return Densities(
    jnp.concatenate([organs, contents.reshape(-1), unnamed]),
    look.texture * jnp.concatenate([ORGANS.slow, slow.reshape(-1), _UNNAMED_SLOW]),
    look.texture * jnp.concatenate([ORGANS.fine, fine.reshape(-1), _UNNAMED_FINE]),
  )


def _draw_unnamed(key: Array, organs: Array) -> Array:
  """Returns the mean of every material that no map names, [6], in the order of `materials`.

  Args:
    key: random key.
    organs: HU of every organ, about which these lie.
  """
  haze, below, content, is_cyst, cyst, normal = jax.random.uniform(key, (6,))
  fat, bowel, vein, pancreas = (
    organs[ALL_ORGANS[name]] for name in ("fat", "small_bowel", "portal_splenic_vein", "pancreas")
  )
  tumour = pancreas + _TUMOUR_HU[0] + _TUMOUR_HU[1] * jax.scipy.special.ndtri(normal)
  low, high = _CYST_HU
  return jnp.stack(
    [
      fat + _HAZE_HU * haze,
      bowel - _BELOW_WALL_HU * below,
      _LOOP_HU[0] + (_LOOP_HU[1] - _LOOP_HU[0]) * content,
      vein,
      jnp.where(is_cyst < _CYSTS, low + (high - low) * cyst, tumour),
      jnp.full_like(vein, _DUCT_HU),
    ]
  )


def _mix_phases(look: ScanLook, deviation: Array, spread: float) -> Array:
  """Returns the mean of every organ between two contrast phases, [N].

  Args:
    look: of the scan.
    deviation: normal, [N + 1], of the organs and at last of all enhancement together, which dose
      and circulation raise or lower.
    spread: factor on the sd between patients.
  """
  ends = np.cumsum(PHASE_SHARES)[:-1]
  phase = jnp.sum(look.phase >= ends)
  towards = jnp.floor(look.towards * len(PHASE_SHARES)).astype(jnp.int32)
  mean, sd = (
    (1 - look.between) * jnp.asarray(table)[phase] + look.between * jnp.asarray(table)[towards]
    for table in (ORGANS.mean, ORGANS.sd)
  )
  own = deviation[ORGANS.patient]
  mixed: Array = mean + spread * sd * (_COMMON * deviation[-1] + _OWN * own)
  return mixed


def _fill_contents(look: ScanLook, organs: Array, drawn: Array) -> tuple[Array, Array]:
  """Returns what hollow organs hold: HU and whether it is gas, both [H, STRETCHES, LAYERS].

  Args:
    look: of the scan.
    organs: HU of every organ.
    drawn: three uniform numbers for each stretch, [3, H, STRETCHES].
  """
  takes_contrast = (look.drunk < _DRUNK) & CONTENTS.takes_contrast
  low, high = (
    jnp.where(takes_contrast, CONTRAST[i], CONTENTS.range[:, i])[:, None] for i in (0, 1)
  )
  is_collapsed = drawn[0] < CONTENTS.collapsed[:, None]
  filled = jnp.where(is_collapsed, organs[CONTENTS.organ][:, None], low + (high - low) * drawn[1])
  # The number of layers of gas is uniform from 0 to about twice the share that the organ has.
  layers = jnp.floor(drawn[2] * (2 * LAYERS * CONTENTS.gas[:, None] + 1))
  layers = jnp.where(is_collapsed, 0, layers)[..., None]
  is_gas = jnp.arange(LAYERS) >= LAYERS - layers
  return jnp.where(is_gas, _GAS_HU, filled[..., None]), is_gas
