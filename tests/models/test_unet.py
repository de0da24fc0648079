import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.models import build
from attn_unet_jax.models.ops.resize import upsample
from attn_unet_jax.models.unet import DeepSupervision
from tests import networks

ORACLES = [  # arithmetic from the reference's own definition
  ("attention_unet", {"num_classes": 2}, 6_472_784),
  ("attention_unet", {"num_classes": 4}, 6_473_322),
  ("attention_unet", {"num_classes": 4, "feature_scale": 3.82}, 7_084_886),
  ("attention_unet", {"num_classes": 4, "gating": "shared"}, 6_411_498),
  ("attention_unet", {"num_classes": 4, "gates": 1}, 6_214_151),
  ("attention_unet", {"num_classes": 2, "gates": 1}, 6_213_613),
  ("unet", {"num_classes": 2}, 5_887_466),
  ("unet", {"num_classes": 4}, 5_888_004),
  ("unet", {"num_classes": 4, "feature_scale": 3.82}, 6_444_328),
  ("unet", {"num_classes": 4, "feature_scale": 3.0}, 10_403_190),
]


def shapes(network, patch=(16, 16, 16)):
  """Shapes of variables and outputs, without a computation."""
  x = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
  return variables, jax.eval_shape(lambda v, x: network.apply(v, x, False), variables, x)


@pytest.mark.parametrize(("name", "options", "number"), ORACLES)
def test_number_of_parameters(name, options, number):
  variables, _ = shapes(networks.build(name, **options))
  assert sum(math.prod(a.shape) for a in jax.tree.leaves(variables["params"])) == number
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_unet_has_no_gates_and_keeps_the_grid():
  _, (logits, out) = shapes(networks.build("unet", num_classes=3, dtype=jnp.bfloat16), (32, 16, 48))
  assert (logits.shape, logits.dtype) == ((1, 32, 16, 48, 3), jnp.float32)
  assert out == {"gates": {}}


def test_patch_that_pooling_does_not_divide_is_refused():
  with pytest.raises(ValueError, match=r"patch \(16, 24, 16\)"):
    shapes(networks.build("unet"), (16, 24, 16))


@pytest.mark.parametrize(
  ("patch", "nearest"), [((160, 160, 96), (160, 160, 96)), ((30, 41, 3), (32, 48, 16))]
)
def test_nearest_patch(patch, nearest):
  network = networks.build("unet")
  assert build.nearest_patch(network, patch) == nearest
  assert network.output_margin == (0, 0, 0)


@pytest.mark.parametrize(
  "upsampling", ["align_corners", pytest.param("half_pixel", marks=pytest.mark.slow)]
)
def test_deep_supervision_is_a_convolution_of_the_concatenated_maps(upsampling):
  rng = np.random.default_rng(0)
  levels = [jnp.asarray(rng.normal(size=(1, s, s, s, 8 // s)), jnp.float32) for s in (8, 4, 2, 1)]
  head = DeepSupervision(3, upsampling=upsampling)
  variables = head.init(jax.random.key(0), levels)
  params = variables["params"]
  maps = [
    upsample(
      x @ params[f"level{i}"]["kernel"][0, 0, 0] + params[f"level{i}"]["bias"],
      (8, 8, 8),
      upsampling,
    )
    for i, x in enumerate(levels, 1)
  ]
  expected = jnp.concatenate(maps, -1) @ params["kernel"] + params["bias"]
  np.testing.assert_allclose(head.apply(variables, levels), expected, atol=1e-5)
