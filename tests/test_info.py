import re

import jax
import pytest

from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.workflows import describe_needs as needs
from attn_unet_jax.workflows.describe_needs import count_foreground, describe_network
from experiments.pancreas import get_config
from tests.configs import with_keys


def _experiment(variant=""):
  return resolve_draft(get_config(variant), data=False)


@pytest.fixture(scope="module")
def facts():
  return describe_network(_experiment())


def test_parameters_are_those_of_the_network(facts):
  assert facts["parameters"] == 6_472_784
  assert sum(facts["parameters_by_module"].values()) == facts["parameters"]


def test_operations_are_those_of_the_convolutions(facts):
  """Level 1 alone: 1->16, 16->16 in the encoder and 48->16, 16->16 in the decoder, 3x3x3."""
  level_1 = 2 * 160 * 160 * 96 * 27 * (1 * 16 + 16 * 16 + 48 * 16 + 16 * 16)
  total = facts["inference_operations_per_window"]
  # The levels below have an eighth of the voxels and four times the channels' product.
  assert 1.5 * level_1 < total < 3 * level_1
  assert facts["train_step_operations"] == 3 * total * facts["batch_size"]


def test_memory_grows_with_the_batch(facts):
  more = describe_network(with_keys(_experiment(), {"train.batch_size": 4}))
  assert more["train_step_activation_bytes"] == 2 * facts["train_step_activation_bytes"]
  assert more["inference_operations_per_window"] == facts["inference_operations_per_window"]


@pytest.mark.parametrize(
  ("dtype", "platform", "notes"),
  [("bfloat16", "cpu", 1), ("float32", "cpu", 0), ("bfloat16", "gpu", 0), ("bfloat16", "tpu", 0)],
)
def test_bfloat16_is_said_to_gain_nothing_on_a_cpu_alone(monkeypatch, dtype, platform, notes):
  monkeypatch.setattr(needs, "multiplies_bfloat16", lambda: False)
  told = needs.list_notes(with_keys(_experiment(), {"model.dtype": dtype}), platform)
  assert len(told) == notes
  assert all("model.dtype='bfloat16' makes nothing faster on a CPU" in note for note in told)


@pytest.mark.parametrize(
  ("form", "is_built", "multiplies", "said"),
  [
    ("auto", True, True, ["bfloat16' makes nothing .*; here config.model.conv='onednn' makes"]),
    ("auto", True, False, ["bfloat16' makes nothing .* lets predict use OpenVINO$"]),
    ("onednn", True, True, []),
    ("onednn", True, False, ["bfloat16' makes nothing .* lets predict use OpenVINO$"]),
    ("onednn", False, False, ["conv='onednn' is not here.*make install-native", "bfloat16' makes"]),
  ],
)
def test_bfloat16_gains_by_onednn_where_it_is_built(monkeypatch, form, is_built, multiplies, said):
  monkeypatch.setattr(needs, "has_onednn", lambda: is_built)
  monkeypatch.setattr(needs, "multiplies_bfloat16", lambda: multiplies)
  config = with_keys(_experiment(), {"model.dtype": "bfloat16", "model.conv": form})
  found = needs.list_notes(config, "cpu")
  assert len(found) == len(said)
  assert all(re.search(pattern, note) for pattern, note in zip(said, found, strict=True))


@pytest.mark.parametrize("target", [None, "h100"])
def test_notes_are_about_the_devices_here(monkeypatch, target):
  """Asked for a target, `info` computes on this CPU, about which nobody asked."""
  monkeypatch.setattr(needs, "describe_target", lambda config, name: {"device": name})
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  config = with_keys(_experiment(), {"model.dtype": "bfloat16"})
  assert ("notes" in needs.describe_needs(config, 0, target)) == (target is None)


def test_the_foreground_of_a_set_is_counted(phantoms):
  """Of organs that are known to lie in the patches; more of them, more foreground."""
  config = _experiment("phantom")
  config = with_keys(
    config,
    {
      "data.dir": str(phantoms),
      "data.dataset": "phantom_ct/tiny",
      "data.spacing_mm": 10.0,
      "data.patch": (16, 16, 16),
    },
  )
  pancreas = count_foreground(config, 4)
  config = with_keys(config, {"data.labels": "organs=pancreas+liver"})
  assert 0 < pancreas < count_foreground(config, 4) < 0.7
