from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from scipy import ndimage

from attn_unet_jax.models import layers
from attn_unet_jax.models.ops import resize
from tests.conftest import BY_MLIR, draw

# As networks have them: one program for each shape, where Python would compile a dozen small ones.
max_pool = jax.jit(resize.max_pool)
upsample = jax.jit(resize.upsample, static_argnums=(1, 2))
interpolate_by_neighbours = jax.jit(resize.interpolate_by_neighbours, static_argnums=(1, 2, 3))


def test_align_corners_matrix_by_hand():
  matrix = resize.interpolation_matrix(3, 5, "align_corners")
  expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
  np.testing.assert_allclose(matrix, expected)


def test_half_pixel_matrix_by_hand():
  matrix = resize.interpolation_matrix(2, 4, "half_pixel")
  np.testing.assert_allclose(matrix, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


@pytest.mark.usefixtures("double_precision")
def test_align_corners_against_scipy():
  x, shape = draw(1, 2, 3, 4, 1), (4, 6, 5)
  places = [np.linspace(0, a - 1, b) for a, b in zip(x.shape[1:4], shape, strict=True)]
  grid = np.meshgrid(*places, indexing="ij")
  expected = ndimage.map_coordinates(np.asarray(x[0, ..., 0]), grid, order=1)
  np.testing.assert_allclose(upsample(x, shape)[0, ..., 0], expected, atol=1e-12)


@pytest.mark.usefixtures("double_precision")
def test_half_pixel_against_jax_image():
  x = draw(2, 2, 3, 4, 2)
  expected = jax.image.resize(x, (2, 4, 6, 12, 2), "trilinear")
  ours = upsample(x, (4, 6, 12), "half_pixel")
  np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("mode", ["align_corners", "half_pixel", "tf1"])
@pytest.mark.parametrize(("size", "factor"), [(1, 2), (2, 2), (5, 2), (3, 3), (4, 8), (2, 8)])
def test_neighbours_added_up_are_the_matrix(size, factor, mode):
  x, target = draw(2, size, 2, size, 3), size * factor
  matrix = resize.interpolation_matrix(size, target, mode)
  expected = np.einsum("ts,nsyzc->ntyzc", matrix, x)
  np.testing.assert_allclose(interpolate_by_neighbours(x, 1, target, mode), expected, atol=1e-12)
  expected = np.einsum("ts,nxysc->nxytc", matrix, x)
  np.testing.assert_allclose(interpolate_by_neighbours(x, 3, target, mode), expected, atol=1e-12)


def test_a_gpu_adds_up_neighbours_along_every_axis():
  x = draw(1, 2, 3, 4, 1)
  traced = jax.jit(lambda x: resize.upsample(x, (4, 6, 8))).trace(x)

  def products(platform):
    return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.dot_general")

  assert [products(platform) for platform in ("cuda", "cpu", "tpu")] == [0, 2, 2]


def test_one_sample_is_spread_over_its_axis():
  for mode in ("align_corners", "half_pixel", "tf1"):
    np.testing.assert_array_equal(resize.interpolation_matrix(1, 3, mode), np.ones((3, 1)))


def test_max_pool_against_reduce_window():
  x = draw(2, 4, 6, 2, 3)
  window = (1, 2, 2, 2, 1)
  expected = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
  np.testing.assert_array_equal(max_pool(x), expected)


def test_the_gradient_of_max_pool_goes_to_the_largest():
  x = draw(1, 4, 2, 2, 3)
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x) * jnp.arange(1.0, 4.0))))(x)
  x = np.array(x)
  pooled = np.repeat(max_pool(x), 2, axis=1)
  np.testing.assert_array_equal(gradient, np.where(x == pooled, np.arange(1.0, 4.0), 0))
  x[0, 0, 0, 0, 0] = np.nan
  assert np.isnan(max_pool(x)[0, 0, 0, 0, 0])


def test_the_gradient_of_max_pool_survives_operands_that_are_computed_twice():
  """As XLA does here, with other rounding each time: reduce_max finds no maximum, 0 / 0."""
  x, a, b = draw(2, 8, 8, 8, 4), draw(4), draw(4)
  low = {"xla_backend_optimization_level": 0, **BY_MLIR}

  def loss(pool, x, a, b):
    normalised = (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-5) * a + b
    return jnp.sum(jnp.sin(pool(normalised)))

  def gradient(pool):
    compiled = jax.jit(jax.grad(partial(loss, pool))).lower(x, a, b).compile(compiler_options=low)
    return compiled(x, a, b)

  expected = jax.grad(partial(loss, resize.max_pool))(x, a, b)
  np.testing.assert_allclose(gradient(resize.max_pool), expected, atol=1e-4)


def test_initialisation_is_the_references():
  module = layers.Conv(200)
  params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 3, 3, 3, 8)))["params"]
  fan_in = 27 * 8
  assert params["kernel"].std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.02)
  assert jnp.abs(params["kernel"]).max() > 3 * np.sqrt(2 / fan_in)  # normal, not truncated
  assert jnp.abs(params["bias"]).max() <= 1 / np.sqrt(fan_in)
  assert params["bias"].std() == pytest.approx(1 / np.sqrt(3 * fan_in), rel=0.15)
  scale = layers.scale_around_one(jax.random.key(1), (20000,))
  assert scale.mean() == pytest.approx(1, abs=1e-3)
  assert scale.std() == pytest.approx(0.02, rel=0.02)


def test_batch_norm_normalises_and_keeps_running_statistics_in_float32():
  x = 3 + 2 * draw(2, 4, 4, 4, 2).astype(jnp.bfloat16)
  norm = layers.BatchNorm(jnp.bfloat16)
  variables = jax.jit(norm.init, static_argnums=2)(jax.random.key(0), x, False)

  @jax.jit
  def train(variables, x):
    return norm.apply(variables, x, True, mutable=["batch_stats"])

  y, updates = train(variables, x)
  (running,) = updates["batch_stats"].values()
  wide = np.asarray(x, np.float64)
  assert y.dtype == jnp.bfloat16
  assert running["mean"].dtype == jnp.float32
  np.testing.assert_allclose(running["mean"], 0.1 * wide.mean((0, 1, 2, 3)), rtol=1e-4)
  np.testing.assert_allclose(running["var"], 0.9 + 0.1 * wide.var((0, 1, 2, 3)), rtol=1e-4)
  (params,) = variables["params"].values()
  expected = (wide - wide.mean((0, 1, 2, 3))) / np.sqrt(wide.var((0, 1, 2, 3)) + 1e-5)
  np.testing.assert_allclose(y.astype(float), expected * params["scale"], atol=0.03)
  frozen = jax.jit(norm.apply, static_argnums=2)(variables | updates, x, False)
  expected = (wide - running["mean"]) / np.sqrt(running["var"] + 1e-5) * params["scale"]
  np.testing.assert_allclose(frozen.astype(float), expected, atol=0.05)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("form", "modes"), [("auto", ["rev"]), ("native", ["fwd", "rev"])])
def test_block_gradients(form, modes):
  x = draw(2, 4, 2, 3, 2)
  block = layers.ConvBlock(3, form=form, dtype=jnp.float64)
  shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)
  rng = np.random.default_rng(1)
  variables = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), shapes)

  @jax.jit
  def apply(params, x):
    state = variables | {"params": params}
    return block.apply(state, x, True, mutable=["batch_stats"])[0]

  check_grads(apply, (variables["params"], x), order=1, modes=modes)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("mode", ["align_corners", "half_pixel"])
def test_resizing_gradients(mode):
  def pool_and_upsample(x):
    return resize.upsample(resize.max_pool(x), (3, 4, 5), mode)

  check_grads(jax.jit(pool_and_upsample), (draw(1, 4, 4, 2, 2),), order=1, modes=["fwd", "rev"])


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("mode", ["align_corners", "half_pixel", "tf1"])
def test_every_voxel_of_an_upsampled_map_by_its_eight_neighbours(mode):
  """Trilinear interpolation as a sum over corners, in loops."""
  x, shape = draw(1, 2, 3, 2, 1), (4, 6, 8)
  source, grid = np.asarray(x[0, ..., 0]), x.shape[1:4]
  ours = np.asarray(upsample(x, shape, mode))[0, ..., 0]
  for voxel in np.ndindex(*shape):
    if mode == "align_corners":
      place = [i * (a - 1) / (b - 1) for i, a, b in zip(voxel, grid, shape, strict=True)]
    else:
      half = 0.5 if mode == "half_pixel" else 0.0
      place = [(i + half) * a / b - half for i, a, b in zip(voxel, grid, shape, strict=True)]
      place = [min(max(p, 0.0), a - 1.0) for p, a in zip(place, grid, strict=True)]
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
      low = [min(int(p), a - 2) for p, a in zip(place, grid, strict=True)]
      weights = [p - k if c else k + 1 - p for c, p, k in zip(corner, place, low, strict=True)]
      value += np.prod(weights) * source[tuple(k + c for k, c in zip(low, corner, strict=True))]
    assert ours[voxel] == pytest.approx(value, abs=1e-12)
