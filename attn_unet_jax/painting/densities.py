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

_GAS_HU = -980.0
_DRUNK = 0.25  # share of patients who have drunk contrast agent
# The squares add up to 1, so that the sd between patients is that of the table.
_COMMON, _OWN = 0.6, 0.8
_CONTENT_SLOW = 10.0


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
  return Densities(
    jnp.concatenate([organs, contents.reshape(-1)]),
    look.texture * jnp.concatenate([ORGANS.slow, slow.reshape(-1)]),
    look.texture * jnp.concatenate([ORGANS.fine, fine.reshape(-1)]),
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
