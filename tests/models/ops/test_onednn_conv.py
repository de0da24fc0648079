"""The form `onednn` against XLA's own convolution, where its package is built; else refused."""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.models.ops import conv, onednn_conv
from attn_unet_jax.runtime.errors import UserError
from tests.conftest import draw

needs_onednn = pytest.mark.skipif(
  not onednn_conv.has_onednn(), reason="attn_unet_jax_onednn is not built: make install-native"
)


def draw_arrays(grid, size, channels, features, dtype=jnp.float32, batch=2):
  x = draw(batch, *grid, channels, seed=0).astype(dtype)
  return x, draw(size, size, size, channels, features, seed=1).astype(dtype)


def value_and_gradients(x, kernel, form, **options):
  y, pullback = jax.vjp(functools.partial(conv.conv3d, form=form, **options), x, kernel)
  return y, *pullback(draw(*y.shape, seed=2).astype(y.dtype))


@needs_onednn
@pytest.mark.parametrize(
  ("size", "stride", "padding", "grid", "channels", "features"),
  [  # what the networks use, on even, odd and tiny grids
    (3, 1, "SAME", (9, 5, 7), 5, 3),
    (3, 1, "SAME", (2, 3, 1), 1, 16),
    (3, 1, "VALID", (7, 5, 6), 48, 16),
    (3, 2, "SAME", (5, 4, 7), 2, 3),
    (3, 2, "VALID", (5, 4, 7), 16, 32),
    (5, 1, "SAME", (6, 5, 7), 16, 16),
    (2, 2, "SAME", (5, 4, 3), 2, 3),
    (2, 1, "SAME", (3, 4, 2), 2, 3),
  ],
)
def test_output_and_gradients_are_those_of_xla(size, stride, padding, grid, channels, features):
  options = {"strides": (stride,) * 3, "padding": padding}
  x, kernel = draw_arrays(grid, size, channels, features)

  @jax.jit
  def both(x, kernel):
    return [value_and_gradients(x, kernel, form, **options) for form in ("native", "onednn")]

  assert "attn_unet_jax_onednn" in both.lower(x, kernel).as_text()
  for expected, found in zip(*both(x, kernel), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@needs_onednn
def test_bfloat16_is_summed_in_float32():
  """Of ones: sums of bfloat16 would stop at 256. The true ones have 8 significant bits at most."""
  x, kernel = jnp.ones((1, 8, 8, 8, 384), jnp.bfloat16), jnp.ones((3, 3, 3, 384, 16), jnp.bfloat16)
  convolve = functools.partial(conv.conv3d, padding="VALID", form="onednn")
  y, pullback = jax.vjp(jax.jit(convolve), x, kernel)
  input_gradient, kernel_gradient = pullback(jnp.ones_like(y))
  assert y.dtype == input_gradient.dtype == kernel_gradient.dtype == jnp.bfloat16
  assert (y == 27 * 384).all()
  assert input_gradient[0, 4, 4, 4, 0] == 27 * 16
  assert (kernel_gradient == 6**3).all()


@needs_onednn
def test_bits_repeat_and_calls_from_many_threads_do_not_mix():
  arrays = [draw_arrays((n, 8, 9), 3, 16, 16, batch=1) for n in (6, 7, 8)]
  compute = jax.jit(functools.partial(value_and_gradients, form="onednn"))
  expected = [compute(*one) for one in arrays]
  with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda i: compute(*arrays[i % 3]), range(60)))
  for i, one in enumerate(found):
    for a, b in zip(one, expected[i % 3], strict=True):
      np.testing.assert_array_equal(a, b)


@needs_onednn
@pytest.mark.parametrize("change", [jax.vmap, jax.checkpoint])
def test_vectorised_and_computed_again_it_is_the_same(change):
  x, kernel = draw_arrays((4, 5, 3), 3, 2, 3)

  def loss(x, kernel, form, change):
    convolve = change(functools.partial(conv.conv3d, form=form, padding="SAME"))
    given = (x[:, None], jnp.stack([kernel] * 2)) if change is jax.vmap else (x, kernel)
    return jnp.sum(convolve(*given) ** 2)

  compute = jax.jit(jax.grad(loss, (0, 1)), static_argnums=(2, 3))
  for a, b in zip(
    compute(x, kernel, "onednn", change), compute(x, kernel, "native", lambda f: f), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@needs_onednn
def test_other_types_and_platforms_have_the_forms_of_auto():
  x, kernel = draw_arrays((8, 8, 8), 3, 16, 16)
  convolve = jax.jit(functools.partial(conv.conv3d, form="onednn"))
  for platform in ("cuda", "tpu"):
    traced = convolve.trace(x, kernel).lower(lowering_platforms=(platform,))
    automatic = jax.jit(conv.conv3d).trace(x, kernel).lower(lowering_platforms=(platform,))
    assert "onednn" not in traced.as_text()
    assert traced.as_text().count("convolution(") == automatic.as_text().count("convolution(")
  halves = [a.astype(jnp.float16) for a in (x, kernel)]
  assert "onednn" not in convolve.lower(*halves).as_text()


@needs_onednn
def test_bfloat16_is_left_to_auto_where_the_processor_does_not_have_it(monkeypatch):
  monkeypatch.setattr(onednn_conv.find_onednn(), "has_bfloat16", lambda: False)
  x, kernel = draw_arrays((4, 4, 4), 3, 2, 2, jnp.bfloat16)
  lowered = jax.jit(functools.partial(conv.conv3d, form="onednn")).lower(x, kernel)
  assert "onednn" not in lowered.as_text()


def test_without_the_package_the_message_names_the_way_out(monkeypatch):
  fault = ModuleNotFoundError("No module named 'attn_unet_jax_onednn'")
  monkeypatch.setattr(onednn_conv, "find_onednn", lambda: fault)
  assert not onednn_conv.has_onednn()
  with pytest.raises(UserError, match=r"^config\.model\.conv='onednn': needs .*install-native"):
    conv.conv3d(*draw_arrays((4, 4, 4), 3, 1, 1), form="onednn")
