from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.evaluation.gate_places import read_gate_means
from attn_unet_jax.inference.doubt import map_gates
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.nifti import FULL_SHARE
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.workflows import measure_attention as workflow
from benchmarks.orientations import on_axes
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct, drawn_label
from tests.inference.test_attention import Gated


@pytest.fixture
def opened(config, monkeypatch):
  """Opens the attention of a run whose gates say how bright a voxel is."""
  config = with_keys(config, {"data.spacing_mm": 8.0, "inference.patch": (16, 16, 16)})

  def open_run(gated=True):
    found = SimpleNamespace(config=config, module=Gated(gated), variables={})
    monkeypatch.setattr(workflow, "load_networks", lambda _: [found])
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


def test_the_places_of_a_case_are_those_of_its_label_whatever_its_axes(opened, tmp_path, capsys):
  """A gate that says how bright a voxel is, which the organ is more than its surroundings."""
  case = NativeCase("a", on_axes(drawn_ct(), "LPS"), on_axes(drawn_label(), "LPS"), "a.nii")
  fold = SimpleNamespace(
    dataset=SimpleNamespace(load=lambda _: case),
    mapping=parse_mapping("pancreas=1", {}),
    boxes=None,
  )
  workflow.write_attention(opened(), fold, ["a"], tmp_path)
  (gates,) = read_gate_means(tmp_path / "attention.csv").values()
  image, organ = to_canonical(drawn_ct()).array, to_canonical(drawn_label()).array == 1
  share = np.clip((image + 160.0) / 400, 0, 1) / 2
  assert gates["level1/0"]["organ"] == pytest.approx(share[organ].mean(), abs=1e-4)
  rest = gates["level1/0"]["shell"], gates["level1/0"]["elsewhere"]
  # Where all gates are 0, as this one is in the air, nothing has looked.
  assert min(rest) <= share[~organ & (share > 0)].mean() <= max(rest)
  assert capsys.readouterr().out.splitlines()[0].startswith("attention level1/0: organ 0.")


def test_maps_of_gates_lie_on_the_scans_own_voxels(opened):
  scan = on_axes(drawn_ct(), "LPS")
  shares = map_gates([*opened()(scan, None, "a").values()], scan.grid)
  assert shares.shape == (*scan.shape, 2)
  expected = np.clip((scan.array + 160.0) / 400, 0, 1) / 2
  np.testing.assert_allclose(shares[..., 0] / FULL_SHARE, expected, atol=1e-4)
