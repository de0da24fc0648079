from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.workflows import measure_attention as workflow
from benchmarks.orientations import on_axes
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct
from tests.inference.test_attention import Gated


@pytest.fixture
def opened(config, monkeypatch):
  """Opens the attention of a run whose gates say how bright a voxel is."""
  config = with_keys(config, {"data.spacing_mm": 8.0, "inference.patch": (16, 16, 16)})

  def open_run(gated=True):
    found = SimpleNamespace(config=config, module=Gated(gated), variables={})
    monkeypatch.setattr(workflow, "load_best", lambda _: found)
    return workflow.open_attention("run")

  return open_run


def test_maps_lie_on_the_scan_whatever_its_axes(opened):
  maps = opened()(on_axes(drawn_ct(), "LPS"), None, "a")
  image = to_canonical(drawn_ct())
  one = maps["level1/0"]
  np.testing.assert_allclose(one.affine, image.affine)
  expected = np.clip((image.array + 160.0) / 400, 0, 1) / 2
  np.testing.assert_allclose(one.array, expected, atol=1e-4)


def test_no_gate_is_open_outside_the_box(opened):
  whole = opened()(drawn_ct(), None, "a")
  maps = opened()(drawn_ct(), Box((-1000.0, -1000.0, -1000.0), (-20.0, 1000.0, 1000.0)), "a")
  for name, one in maps.items():
    looked = one.array.any((1, 2))
    assert 0 < looked.sum() < one.shape[0] - 4
    assert not looked[-4:].any()
    assert whole[name].array[-4:].any()


def test_a_network_without_gates_is_refused(opened):
  with pytest.raises(UserError, match="run: its network, attention_unet, has no attention gates"):
    opened(gated=False)
