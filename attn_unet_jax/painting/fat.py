"""Fat between the lobules of the pancreas."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfinv

_SOFT = 0.4  # of the field, over which a cleft's edge runs


def share_of_fat(field: Array, fraction: Array) -> Array:
  """Returns how much of each voxel is fat, in [0, 1]; the mean is about `fraction`.

  Fat lies where a field is near 0, on thin sheets: these are the clefts between lobules.

  Args:
    field: normal, of variance 1, any shape.
    fraction: 0 to below 1.
  """
  reach = jnp.sqrt(2.0) * erfinv(fraction)  # |field| is below it in that fraction of the voxels
  edge = jnp.maximum(jnp.minimum(_SOFT, reach), 1e-6)
  return jnp.clip((reach - jnp.abs(field)) / edge + 0.5, 0, 1) * (fraction > 0)
