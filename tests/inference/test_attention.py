import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.inference.attention import AttentionMaps
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


class Gated(nn.Module):
  """A network whose gates say how bright a voxel is, one of them on a coarser grid."""

  gated: bool = True
  num_classes: int = 3
  patch_multiple = (2, 2, 2)
  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    del train
    n, X, Y, Z, _ = x.shape
    coarse = x.reshape(n, X // 2, 2, Y // 2, 2, Z // 2, 2, 1).mean((2, 4, 6))
    gates = {"level2/0": coarse, "level1/0": jnp.concatenate([x, 0 * x], -1)}
    return jnp.repeat(x, self.num_classes, -1), {"gates": gates if self.gated else {}}


def test_maps_are_the_coefficients_of_each_gate_at_the_places_of_the_voxels(config):
  config = with_keys(config, {"inference.patch": (8, 8, 8)})
  low, high = config.data.window_hu
  hu = np.linspace(low, high, 12 * 10 * 9).reshape(12, 10, 9)
  share = (np.rint(hu) - low) / (high - low)
  system = AttentionMaps(config, Gated(), {})
  assert system.names == ("level1/0", "level2/0")
  maps = system.predict(Volume(np.rint(hu).astype(np.int16), np.eye(4)))
  assert maps.shape == (12, 10, 9, 2)
  # With two channels, one of them 0, the mean is half.
  np.testing.assert_allclose(maps[..., 0], share / 2, atol=1e-5)
  # A ramp stays the ramp: a shift by half a voxel along X would be 0.04.
  assert np.abs(maps[2:-2, 2:-2, 2:-2, 1] - share[2:-2, 2:-2, 2:-2]).max() < 0.01


def test_no_gate_is_open_in_the_air_around_the_body(config):
  """Where no window is; the maps of all gates, and not the first one alone, are 0 there."""
  hu = np.full((12, 60, 12), -1000, np.int16)
  hu[:, :12] = 200
  config = with_keys(config, {"inference.patch": (8, 8, 8), "inference.window": "plan"})
  maps = AttentionMaps(config, Gated(), {}).predict(Volume(hu, np.diag([5.0, 5.0, 5.0, 1.0])))
  assert (maps[:, :12] > 0.4).all()
  assert not maps[:, 30:].any()


@pytest.mark.parametrize("gated", [True, False])
def test_a_network_without_gates_has_no_names(config, gated):
  assert bool(AttentionMaps(config, Gated(gated), {}).names) == gated
