import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from attn_unet_jax.models.ops.packed_conv import kernel_gradient_by_packs, packed_conv3d
from tests.conftest import draw

LAYOUT = ("NXYZC", "XYZIO", "NXYZC")


pytestmark = pytest.mark.usefixtures("double_precision")


def direct(x, kernel, pads):
  return lax.conv_general_dilated(x, kernel, (1, 1, 1), pads, dimension_numbers=LAYOUT)


@pytest.mark.parametrize(
  ("size", "pad", "length", "counts"),
  [
    (3, (1, 1), 8, (2, 4, 8)),
    (3, (0, 0), 10, (2, 4)),
    (5, (2, 2), 4, (2, 4)),
    (2, (0, 1), 6, (3,)),
  ],
)
def test_packs_of_any_size_are_the_convolution(size, pad, length, counts):
  """And the kernel's gradient is what differentiation of the direct form gives."""
  x, kernel, pads = draw(2, 4, 3, length, 2), draw(3, 2, size, 2, 3, seed=1), ((1, 1), (0, 1), pad)
  expected, pullback = jax.vjp(lambda k: direct(x, k, pads), kernel)
  g = draw(*expected.shape, seed=2)
  for count in counts:
    packed = jax.jit(functools.partial(packed_conv3d, pads=pads, count=count))
    np.testing.assert_allclose(packed(x, kernel), expected, atol=1e-12)
    gradient = jax.jit(functools.partial(kernel_gradient_by_packs, pads=pads, count=count))
    np.testing.assert_allclose(gradient(x, g, kernel), pullback(g)[0], atol=1e-12)


def test_a_count_that_does_not_divide_is_refused():
  with pytest.raises(TypeError):
    packed_conv3d(draw(1, 4, 4, 6, 1), draw(3, 3, 3, 1, 1), ((1, 1),) * 3, 4)


def test_the_places_of_a_weight_are_summed_up_wide():
  """In bfloat16 each is rounded once, and their sum once more: not once for each that is added."""
  x, g = (np.round(8 * np.asarray(draw(1, 4, 4, 64, 1, seed=i))) / 8 for i in (0, 1))
  kernel, pads = draw(3, 3, 3, 1, 1, seed=2), ((1, 1),) * 3
  exact = jax.jit(lambda k: jax.vjp(lambda k: direct(x, k, pads), k)[1](g)[0])(kernel)
  half = [jnp.asarray(np.asarray(a), jnp.bfloat16) for a in (x, g, kernel)]  # exact but the kernel
  found = jax.jit(functools.partial(kernel_gradient_by_packs, pads=pads, count=16))(*half)
  assert found.dtype == jnp.bfloat16
  error = np.linalg.norm(np.asarray(found, float) - exact) / np.linalg.norm(exact)
  assert error < 2**-8
