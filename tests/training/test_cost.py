"""Operations counted in a traced program, against those of known products."""

import jax
import jax.numpy as jnp

from attn_unet_jax.training.cost import _count_multiply_adds, _iterate_equations


def test_operations_of_known_products():
  def products(x, k, w):
    y = jax.lax.conv_general_dilated(
      x, k, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
    )
    return jax.jit(lambda y: y @ w)(y)

  shapes = ((2, 4, 5, 6, 3), (3, 3, 3, 3, 7), (7, 11))
  jaxpr = jax.make_jaxpr(products)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
  found = {e.primitive.name: _count_multiply_adds(e) for e in _iterate_equations(jaxpr.jaxpr)
           if e.primitive.name in ("conv_general_dilated", "dot_general")}  # fmt: skip
  assert found == {"conv_general_dilated": 27 * 3, "dot_general": 7}
