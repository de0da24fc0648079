import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from attn_unet_jax.models import gates


@pytest.fixture(scope="module", autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def ready(module, x, g):
  """Variables drawn with NumPy, none at a value that would hide a mistake."""
  shapes = jax.eval_shape(lambda x, g: module.init(jax.random.key(0), x, g, False), x, g)
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.2, 1, a.shape)), shapes)


def gate_in_numpy(params, stats, x, g):
  """The gate's equation voxel by voxel, for one image."""
  half = np.zeros((*g.shape[:3], 1))
  for i in np.ndindex(*g.shape[:3]):
    f = params["phi"]["kernel"][0, 0, 0].T @ g[i] + params["phi"]["bias"]
    for offset in np.ndindex(2, 2, 2):
      voxel = tuple(2 * a + b for a, b in zip(i, offset, strict=True))
      f = f + params["theta"]["kernel"][offset].T @ x[voxel]
    q = params["psi"]["kernel"][0, 0, 0].T @ np.maximum(f, 0) + params["psi"]["bias"]
    half[i] = 1 / (1 + np.exp(-q))
  places = [np.linspace(0, a - 1, b) for a, b in zip(half.shape[:3], x.shape[:3], strict=True)]
  grid = np.meshgrid(*places, indexing="ij")
  alpha = ndimage.map_coordinates(half[..., 0], grid, order=1)[..., None]
  y = (alpha * x) @ params["output"]["kernel"][0, 0, 0] + params["output"]["bias"]
  (norm,), (running,) = params["output_norm"].values(), stats["output_norm"].values()
  y = (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
  return y, alpha


def test_gate_against_its_equation_in_numpy():
  x, g = draw(2, 4, 6, 2, 3), draw(2, 2, 3, 1, 5, seed=1)
  gate = gates.AttentionGate(dtype=jnp.float64)
  variables = ready(gate, x, g)
  out, alpha = jax.jit(gate.apply, static_argnums=3)(variables, x, g, False)
  params, stats = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
  for n in range(2):
    expected = gate_in_numpy(params, stats, np.asarray(x[n]), np.asarray(g[n]))
    np.testing.assert_allclose(out[n], expected[0], atol=1e-12)
    np.testing.assert_allclose(alpha[n], expected[1], atol=1e-12)


def test_gates_open_with_a_large_bias():
  x, g = draw(1, 4, 4, 4, 2), draw(1, 2, 2, 2, 2, seed=1)

  @jax.jit
  def biases(x, g):
    both = [gates.AttentionGate(start) for start in (3.0, None)]
    trees = [gate.init(jax.random.key(0), x, g, False) for gate in both]
    return [tree["params"]["psi"]["bias"] for tree in trees]

  opened, default = biases(x, g)
  assert opened == 3.0
  assert 0 < abs(default) <= 1 / np.sqrt(2)


def test_gating_grid_must_be_half_the_skips():
  with pytest.raises(ValueError, match=r"skip grid \(4, 4, 4\), gating grid \(2, 2, 3\)"):
    gates.AttentionGate().init(jax.random.key(0), draw(1, 4, 4, 4, 2), draw(1, 2, 2, 3, 2), False)


@pytest.mark.parametrize("number", [1, 2])
def test_block_combines_its_gates_to_the_skips_channels(number):
  x, g = draw(1, 4, 4, 2, 3), draw(1, 2, 2, 1, 4, seed=1)
  block = gates.GatedSkip(number, dtype=jnp.float64)
  variables = ready(block, x, g)
  out, coefficients = jax.jit(block.apply, static_argnums=3)(variables, x, g, False)
  assert out.shape == x.shape
  assert [a.shape for a in coefficients] == [(1, 4, 4, 2, 1)] * number
  outputs = []
  for i in range(number):
    own = {kind: tree[f"gate{i}"] for kind, tree in variables.items()}
    gated, alpha = gates.AttentionGate(dtype=jnp.float64).apply(own, x, g, False)
    np.testing.assert_allclose(coefficients[i], alpha)
    outputs.append(gated)
  kernel = variables["params"]["combine"]["Conv_0"]["kernel"]
  assert kernel.shape == (1, 1, 1, 3 * number, 3)
  combine = {kind: tree["combine"] for kind, tree in variables.items()}
  expected = gates.ConvNormRelu(3, 1, dtype=jnp.float64).apply(
    combine, jnp.concatenate(outputs, -1), False
  )
  np.testing.assert_allclose(out, expected)


def test_gradients():
  # No custom_vjp in a gate: its convolutions are matrix products, so both modes are checked.
  x, g = draw(1, 4, 4, 2, 2), draw(1, 2, 2, 1, 3, seed=1)
  block = gates.GatedSkip(2, dtype=jnp.float64)
  variables = ready(block, x, g)

  @jax.jit
  def apply(params, x, g):
    state = {**variables, "params": params}
    (out, coefficients), _ = block.apply(state, x, g, True, mutable=["batch_stats"])
    return out, coefficients

  check_grads(apply, (variables["params"], x, g), order=1, modes=["fwd", "rev"])
