import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from attn_unet_jax.models import gates

pytestmark = pytest.mark.usefixtures("double_precision_throughout")


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def ready(module, x, g):
  """Variables drawn with NumPy, none at a value that would hide a mistake."""
  shapes = jax.eval_shape(lambda x, g: module.init(jax.random.key(0), x, g, False), x, g)
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.2, 1, a.shape)), shapes)


def linear(grid, shape, upsampling):
  """Trilinear, [X, Y, Z, C] to the grid `shape`."""
  if upsampling == "align_corners":
    places = [np.linspace(0, a - 1, b) for a, b in zip(grid.shape[:3], shape, strict=True)]
  else:  # by the places of voxel centres; beyond the outermost their values are repeated
    places = [
      np.clip((np.arange(b) + 0.5) * a / b - 0.5, 0, a - 1)
      for a, b in zip(grid.shape[:3], shape, strict=True)
    ]
  where = np.meshgrid(*places, indexing="ij")
  channels = [ndimage.map_coordinates(c, where, order=1) for c in np.moveaxis(grid, -1, 0)]
  return np.stack(channels, -1)


def gate_in_numpy(variant, upsampling, params, stats, x, g):
  """The gate's equation voxel by voxel, for one image."""
  grid = tuple(n // 2 for n in x.shape[:3])
  phi = linear(g @ params["phi"]["kernel"][0, 0, 0] + params["phi"]["bias"], grid, upsampling)
  q = np.zeros((*grid, 1))
  for i in np.ndindex(*grid):
    f = phi[i]
    for offset in np.ndindex(2, 2, 2):
      voxel = tuple(2 * a + b for a, b in zip(i, offset, strict=True))
      f = f + params["theta"]["kernel"][offset].T @ x[voxel]
    f = np.log(1 + np.exp(f)) if variant == "softplus" else np.maximum(f, 0)
    q[i] = params["psi"]["kernel"][0, 0, 0].T @ f + params["psi"]["bias"]
  half = np.exp(q) / np.exp(q).sum() if variant == "softmax" else 1 / (1 + np.exp(-q))
  alpha = linear(half, x.shape[:3], upsampling)
  y = (alpha * x) @ params["output"]["kernel"][0, 0, 0] + params["output"]["bias"]
  (norm,), (running,) = params["output_norm"].values(), stats["output_norm"].values()
  y = (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
  return y, alpha


@pytest.mark.parametrize(
  ("variant", "upsampling"),
  [(v, "align_corners") for v in ("sigmoid", "softplus", "softmax")] + [("sigmoid", "half_pixel")],
)
@pytest.mark.parametrize("grid", [(4, 3, 1), (2, 3, 1)])  # of the signal: half, and coarser
def test_gate_against_its_equation_in_numpy(variant, upsampling, grid):
  x, g = draw(2, 8, 6, 2, 3), draw(2, *grid, 5, seed=1)
  gate = gates.AttentionGate(variant=variant, upsampling=upsampling, dtype=jnp.float64)
  variables = ready(gate, x, g)
  out, alpha = jax.jit(gate.apply, static_argnums=3)(variables, x, g, False)
  params, stats = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
  for n in range(2):
    one = np.asarray(x[n]), np.asarray(g[n])
    expected = gate_in_numpy(variant, upsampling, params, stats, *one)
    np.testing.assert_allclose(out[n], expected[0], atol=1e-12)
    np.testing.assert_allclose(alpha[n], expected[1], atol=1e-12)


@pytest.mark.parametrize(
  ("variant", "expected"),
  [
    ("sigmoid", (1 / (1 + np.exp(-2.0)), 0.5)),  # q = 2 relu(3 - 2) = 2; 2 relu(1 - 2) = 0
    ("softplus", (1 / (1 + (1 + np.e) ** -2), 1 / (1 + (1 + np.exp(-1)) ** -2))),
    ("softmax", (1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0)))),  # of 2 and 0
  ],
)
def test_coefficients_by_hand(variant, expected):
  """Two gating voxels, g = 3 and 1; theta is silent, phi g = g - 2, psi f = 2 f."""
  x, g = jnp.ones((1, 4, 2, 2, 1)), jnp.array([3.0, 1.0]).reshape(1, 2, 1, 1, 1)
  gate = gates.AttentionGate(variant=variant, dtype=jnp.float64)
  shapes = jax.eval_shape(lambda: gate.init(jax.random.key(0), x, g, False))
  variables = jax.tree.map(lambda a: jnp.zeros(a.shape), shapes)
  for name, kernel, bias in (("phi", 1.0, -2.0), ("psi", 2.0, 0.0)):
    variables["params"][name] = {
      "kernel": jnp.full((1, 1, 1, 1, 1), kernel),
      "bias": jnp.full(1, bias),
    }
  _, alpha = jax.jit(gate.apply, static_argnums=3)(variables, x, g, False)
  np.testing.assert_allclose(alpha[0, (0, -1), 0, 0, 0], expected, rtol=1e-12)


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


def test_gating_grid_must_divide_half_the_skips():
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
  alone = jax.jit(gates.AttentionGate(dtype=jnp.float64).apply, static_argnums=3)
  outputs = []
  for i in range(number):
    own = {kind: tree[f"gate{i}"] for kind, tree in variables.items()}
    gated, alpha = alone(own, x, g, False)
    np.testing.assert_allclose(coefficients[i], alpha)
    outputs.append(gated)
  kernel = variables["params"]["combine"]["Conv_0"]["kernel"]
  assert kernel.shape == (1, 1, 1, 3 * number, 3)
  combine = {kind: tree["combine"] for kind, tree in variables.items()}
  joined = jax.jit(gates.ConvNormRelu(3, 1, dtype=jnp.float64).apply, static_argnums=2)
  expected = joined(combine, np.concatenate(outputs, -1), False)
  np.testing.assert_allclose(out, expected)


@pytest.mark.parametrize(
  "variant",
  ["sigmoid", *(pytest.param(x, marks=pytest.mark.slow) for x in ("softplus", "softmax"))],
)
def test_gradients_and_the_compiled_program(variant):
  # No custom_vjp in a gate: its convolutions are matrix products, so both modes are checked.
  x, g = draw(1, 4, 4, 2, 2), draw(1, 2, 2, 1, 3, seed=1)
  block = gates.GatedSkip(2, variant=variant, dtype=jnp.float64)
  variables = ready(block, x, g)

  def apply(params, x, g):
    state = {**variables, "params": params}
    (out, coefficients), _ = block.apply(state, x, g, True, mutable=["batch_stats"])
    return out, coefficients

  compiled, arguments = jax.jit(apply), (variables["params"], x, g)
  check_grads(compiled, arguments, order=1, modes=["fwd", "rev"])
  plain, fast = (jax.tree.leaves(of(*arguments)) for of in (apply, compiled))
  for a, b in zip(plain, fast, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
