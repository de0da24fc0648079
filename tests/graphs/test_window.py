"""Models in ONNX say what the traced functions say, in onnxruntime and in OpenVINO."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.graphs.values import UnsupportedProgramError
from attn_unet_jax.graphs.window import write_window_model
from attn_unet_jax.inference.openvino_engine import import_openvino
from attn_unet_jax.models.build import nearest_patch
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runtime.errors import UserError
from tests.networks import build, draw_variables

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

WINDOW = (4, 6, 5)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 1, 3)).astype(np.float32)
MATRIX = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


def write(function, window=WINDOW, names=("hu",)):
  return write_window_model(function, window, names, "onnx", "a test").SerializeToString()


def run(content, *arrays):
  session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
  names = [one.name for one in session.get_inputs()]
  return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def run_openvino(content, *arrays):
  if not importlib.util.find_spec("openvino"):
    pytest.skip("openvino is not installed")
  core = import_openvino("a test").Core()
  hint = {"INFERENCE_PRECISION_HINT": "f32"}
  return core.compile_model(core.read_model(content), "CPU", hint)(arrays)[0]


def draw(count=2, window=WINDOW):
  return np.random.default_rng(0).normal(size=(count, *window)).astype(np.float32)


def convolved(hu):
  layout = ("NXYZC", "XYZIO", "NXYZC")
  return jax.lax.conv_general_dilated(
    hu[..., None], KERNEL, (1, 1, 1), "SAME", dimension_numbers=layout
  )


def with_prelu(hu):
  y = convolved(hu) + 0.5
  return jnp.where(y >= 0, y, 0.1 * y) + y * jnp.arange(3.0)


def with_transposed(hu):
  layout = ("NXYZC", "XYZIO", "NXYZC")
  x = jax.lax.conv_transpose(
    convolved(hu), KERNEL.swapaxes(3, 4), (2, 2, 2), "SAME", dimension_numbers=layout
  )
  return jax.nn.softmax(x, axis=2)


FUNCTIONS = {
  "convolution": lambda hu: 2 * (jnp.arange(3.0) - convolved(hu)),
  "used twice": with_prelu,
  "transposed convolution": with_transposed,
  "matrix along X": lambda hu: jnp.tensordot(np.ones((2, 4), np.float32), convolved(hu), (1, 1))[0],
  "channels": lambda hu: (
    convolved(hu) @ MATRIX - convolved(hu).mean((1, 2, 3))[:, None, None, None] @ MATRIX
  ),
  "joined voxels": lambda hu: convolved(hu).reshape(hu.shape[0], 24, 5, 3).max(1),
  "joined windows": lambda hu: jnp.tanh(hu).reshape(-1, 5)[:, 1:].reshape(*hu.shape[:3], 4),
  "odd functions": lambda hu: jnp.where(
    jnp.isfinite(hu) & (hu != 0.25), jnp.expm1(hu) ** 3 + jnp.log1p(jnp.abs(hu)), 0
  ),
  "stack": lambda hu: jnp.stack([jnp.zeros_like(hu), hu, jnp.square(hu)], -1)[:, ::2, :, 1:],
  "pad": lambda hu: jax.lax.pad(hu, np.float32(7), ((0, 0, 0), (1, 2, 0), (-1, 0, 0), (0, -2, 0))),
  "no axes": lambda hu: hu.sum(()),
  "calls": lambda hu: jax.jit(jax.checkpoint(jax.nn.relu))(hu),
  "truth": lambda hu: jnp.where(~((hu > 0) & (hu < 1)) | (hu > 2), hu, -1),
  "sums of products": lambda hu: jnp.einsum("nxyz,nxwz->nywx", hu, jnp.exp(hu)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_model_computes_what_the_function_computes(name):
  hu, function = draw(), FUNCTIONS[name]
  expected = np.asarray(function(hu))
  found = run(write(function), hu)
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_a_constant_of_each_channel_becomes_part_of_the_convolution():
  import onnx

  model = onnx.load_from_string(write(FUNCTIONS["convolution"]))
  kinds = [node.op_type for node in model.graph.node]
  assert kinds.count("Conv") == 1
  assert not {"Add", "Sub", "Mul"} & set(kinds)


def test_scalars_are_inputs_too():
  hu = draw()
  content = write(lambda hu, mean, sd: (hu - mean) / sd, names=("hu", "mean", "sd"))
  found = run(content, hu, np.array(3, np.float32), np.array(2, np.float32))
  np.testing.assert_allclose(found, (hu - 3) / 2, rtol=1e-6)


@pytest.mark.parametrize(
  ("function", "said"),
  [
    (lambda hu: hu - hu.mean(0), "a sum or a maximum over several windows"),
    (lambda hu: jnp.concatenate([hu, hu]), "windows that are joined"),
    (lambda hu: jnp.sort(hu), "the operation sort"),
    (lambda hu: jax.lax.cond(hu.sum() > 0, jnp.exp, jnp.sin, hu), "several windows|depends on"),
    (lambda hu: hu[:1], "a part of the windows"),
    # Each keeps a program of its own, which a plain call would run once.
    (lambda hu: jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, hu), "the operation scan"),
    (
      lambda hu: jax.lax.scan(lambda x, k: (x * k, None), hu, KERNEL[0, 0, :, 0, :1])[0],
      "the operation scan",
    ),
    (
      lambda hu: jax.lax.reduce(hu, np.float32(0), lambda a, b: a + 2 * b, (1,)),
      "the operation reduce",
    ),
    (lambda hu: jnp.where(hu.astype(int) & 1, hu, 0), "the operation and of int32"),
    (lambda hu: ~hu.astype(int) + hu, "the operation not of int32"),
    (
      lambda hu: jax.lax.select_n(hu.astype(jnp.int32), hu, 2 * hu),
      "the operation select_n of int32",
    ),
  ],
)
def test_what_cannot_be_written_is_named(function, said):
  with pytest.raises(UnsupportedProgramError, match=said):
    write(function)


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "onnx", None)
  with pytest.raises(UserError, match=r"a test needs onnx, .*pip install -e '\.\[onnx\]'"):
    write(jnp.exp)


NETWORK_WINDOWS = {"unet3d": (92, 92, 92)}


# The others compile for a minute in sum.
SLOW = ("attention_unet", "hnn", "vnet")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.soak)
    for name in NETWORKS
  ],
)
def test_every_network_is_written(name):
  """With a number of windows and sizes of axes that all differ."""
  module = build(name, feature_scale=16.0, num_classes=2)
  window = nearest_patch(module, NETWORK_WINDOWS.get(name, (16, 48, 32)))
  variables = draw_variables(module, window)

  def predict(hu):
    return jax.nn.softmax(module.apply(variables, hu[..., None], train=False)[0])

  hu = draw(2, window)
  # It is compiled to be called once.
  quick = jax.jit(predict).lower(hu).compile({"xla_backend_optimization_level": 0})
  content, expected = write(predict, window), np.asarray(quick(hu))
  assert expected[..., 1].std() > 0.02
  np.testing.assert_allclose(run(content, hu), expected, rtol=0, atol=1e-5)
  np.testing.assert_allclose(run_openvino(content, hu), expected, rtol=0, atol=1e-5)


class Pooled(nn.Module):
  """A network of another package, with Flax's own layers."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.relu(nn.Conv(4, (3, 3, 3), strides=2)(x))
    x = nn.LayerNorm()(x) * nn.silu(x)
    return nn.ConvTranspose(2, (2, 2, 2), strides=(2, 2, 2))(x), {}


def test_a_network_of_another_package_is_written():
  module, window = Pooled(), (8, 12, 4)
  variables = draw_variables(module, window)

  def predict(hu):
    return module.apply(variables, hu[..., None], train=False)[0]

  hu = draw(3, window)
  np.testing.assert_allclose(run(write(predict, window), hu), predict(hu), rtol=0, atol=1e-5)
