import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from attn_unet_jax.models.ops import conv
from attn_unet_jax.models.ops.onednn_conv import has_onednn
from tests.conftest import draw

LAYOUT = ("NXYZC", "XYZIO", "NXYZC")
FORMS = [form for form in conv.FORMS if form != "onednn" or has_onednn()]


pytestmark = pytest.mark.usefixtures("double_precision")


def value_and_gradients(function, x, kernel):
  y, pullback = jax.vjp(function, x, kernel)
  g = draw(*y.shape, seed=2)
  return y, *pullback(g)


CASES = [  # kernel, stride, padding, grid: what the networks use, on even, odd and tiny grids
  (3, 1, "SAME", (4, 4, 4)),
  (3, 1, "SAME", (9, 5, 3)),
  (3, 1, "SAME", (2, 3, 1)),
  (3, 1, "VALID", (7, 5, 6)),
  (3, 2, "SAME", (5, 4, 7)),
  (3, 2, "VALID", (5, 4, 7)),
  (1, 1, "SAME", (3, 4, 5)),
  (1, 2, "VALID", (3, 4, 5)),
  (2, 2, "VALID", (4, 6, 2)),
  (2, 2, "VALID", (5, 6, 3)),
  (2, 2, "SAME", (5, 4, 3)),
  (2, 1, "SAME", (3, 4, 2)),
  (5, 1, "SAME", (6, 5, 7)),
  (5, 1, "VALID", (6, 5, 7)),
]


@pytest.mark.parametrize(("size", "stride", "padding", "grid"), CASES)
def test_every_form_is_the_convolution_in_value_and_gradients(size, stride, padding, grid):
  x, kernel = draw(2, *grid, 2), draw(size, size, size, 2, 3, seed=1)
  strides = (stride,) * 3
  forms = FORMS

  def reference(x, kernel):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)

  @jax.jit
  def everything(x, kernel):
    ours = [
      functools.partial(conv.conv3d, strides=strides, padding=padding, form=form) for form in forms
    ]
    return [value_and_gradients(f, x, kernel) for f in (reference, *ours)]

  expected, *results = everything(x, kernel)
  for form, result in zip(forms, results, strict=True):
    for a, b in zip(result, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=form)


@pytest.mark.parametrize(("channels", "features"), [(4, 3), (3, 3)])
def test_the_gradients_where_the_input_is_not_the_narrower_side(channels, features):
  """The cases above have fewer channels than features; the other way round is another product."""
  x, kernel = draw(2, 9, 5, 4, channels), draw(3, 3, 3, channels, features, seed=1)
  reference, *gradients = (
    jax.jit(functools.partial(value_and_gradients, functools.partial(conv.conv3d, form=form)))
    for form in ("native", "winograd", "planes")
  )
  for found in gradients:
    for ours, expected in zip(found(x, kernel), reference(x, kernel), strict=True):
      np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_auto_takes_winograd_on_the_cpu_where_it_pays():
  x, small, kernel = draw(1, 8, 8, 8, 2), draw(1, 4, 4, 4, 2), draw(3, 3, 3, 2, 3, seed=1)

  def planes_convolved(x):
    text = jax.jit(conv.conv3d).lower(x, kernel).as_text()
    return text.count("stablehlo.convolution")

  assert planes_convolved(x) == 6
  assert planes_convolved(small) == 3


@pytest.mark.parametrize("form", ["auto", "divided"])
def test_off_the_cpu_the_convolution_is_xlas_own_and_on_cuda_packed(form):
  """Four voxels of 16 channels become one of 64 there, forward and for both gradients."""
  x, kernel = draw(1, 8, 8, 8, 16), draw(3, 3, 3, 16, 16, seed=1)
  convolve = functools.partial(conv.conv3d, form=form)
  both = jax.grad(lambda x, k: jnp.sum(convolve(x, k) ** 2), (0, 1))

  def channels(function, platform):
    lowered = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,))
    outputs = re.findall(r"stablehlo\.convolution.*-> tensor<[\dx]*x(\d+)xf64>", lowered.as_text())
    return [int(count) for count in outputs]

  assert channels(convolve, "tpu") == [16]
  assert channels(both, "tpu") == [16] * 3
  assert channels(convolve, "cuda") == [64]
  assert channels(both, "cuda") == [64] * 3


@pytest.mark.parametrize(
  ("channels", "features", "size", "length", "voxels"),
  [
    (16, 16, 3, 96, 4),
    (1, 16, 3, 96, 8),
    (48, 16, 3, 96, 2),
    (16, 32, 3, 48, 2),
    (32, 32, 5, 48, 2),
    (64, 64, 3, 24, 1),
    (16, 16, 3, 6, 2),
    (16, 16, 3, 5, 1),
    (16, 16, 2, 96, 1),
    (16, 16, 1, 96, 1),
  ],
)
def test_how_many_voxels_are_packed(channels, features, size, length, voxels):
  """On a GPU, by the channels; of the output's length a divisor."""
  x, kernel = jnp.zeros((1, 4, 4, length, channels)), jnp.zeros((size,) * 3 + (channels, features))
  traced = jax.jit(functools.partial(conv.conv3d, form="packed")).trace(x, kernel)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  found = re.findall(r"stablehlo\.convolution.*-> tensor<1x4x4x(\d+)x(\d+)xf64>", text)
  packed = (str(length // voxels), str(features * voxels))
  assert found == ([] if size == 1 else [packed])


def test_only_the_input_and_the_kernel_are_kept_for_the_backward_pass():
  x, kernel = draw(1, 8, 8, 8, 2), draw(3, 3, 3, 2, 3, seed=1)
  kept = jax.tree.leaves(jax.vjp(conv.conv3d, x, kernel)[1])
  assert sorted(a.shape for a in kept) == sorted([x.shape, kernel.shape])


@pytest.mark.parametrize("form", ["native", "packed", "planes", "winograd"])
def test_gradients_against_differences(form):
  x, kernel = draw(1, 5, 3, 4, 1), draw(3, 3, 3, 1, 2, seed=1)
  modes = ["fwd", "rev"] if form == "native" else ["rev"]  # a custom_vjp has no forward rule

  @jax.jit
  def convolve(x, kernel):
    return conv.conv3d(x, kernel, form=form)

  check_grads(convolve, (x, kernel), order=1, modes=modes)


@pytest.mark.parametrize("size", [1, 2])
def test_matrix_product_forms_have_both_modes(size):
  x, kernel = draw(1, 2, 4, 2, 2), draw(size, size, size, 2, 3, seed=1)

  @jax.jit
  def convolve(x, kernel):
    return conv.conv3d(x, kernel, strides=(size,) * 3, padding="VALID")

  check_grads(convolve, (x, kernel), order=2, modes=["fwd", "rev"])


def test_winograd_error_in_single_precision_is_small():
  x = draw(1, 12, 8, 8, 16).astype(jnp.float32)
  kernel = draw(3, 3, 3, 16, 16, seed=1).astype(jnp.float32)
  exact = conv.conv3d(x.astype(float), kernel.astype(float), form="native")
  error = jnp.abs(conv.conv3d(x, kernel, form="winograd") - exact).max() / jnp.abs(exact).max()
  assert error < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_stays_bfloat16_and_keeps_its_precision(form):
  x = draw(1, 8, 8, 8, 4).astype(jnp.bfloat16)
  kernel = draw(3, 3, 3, 4, 4, seed=1).astype(jnp.bfloat16)
  y = conv.conv3d(x, kernel, form=form)
  exact = conv.conv3d(x.astype(float), kernel.astype(float), form="native")
  assert y.dtype == jnp.bfloat16
  assert jnp.abs(y.astype(float) - exact).max() / jnp.abs(exact).max() < 2**-7


def test_refuses_an_unknown_form():
  with pytest.raises(ValueError, match="form is 'fft'"):
    conv.conv3d(draw(1, 4, 4, 4, 1), draw(3, 3, 3, 1, 1), form="fft")
