"""Which source trains: by the size of the set and the memory there is, and said in a line."""

import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.patches import sources
from attn_unet_jax.patches.sources import choose_source
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.resample import working_grid
from tests.configs import with_keys


class _Device:
  def __init__(self, stats):
    self._stats = stats

  def memory_stats(self):
    return self._stats


@pytest.fixture
def cases(config, phantoms):
  config = with_keys(config, {"data.dir": str(phantoms)})
  return open_fold(config.data).load("training")


@pytest.mark.parametrize("asked", ["resident", "streaming"])
def test_what_is_asked_for_is_taken_unmeasured(config, asked):
  config = with_keys(config, {"data.source": asked})
  assert choose_source(config.data, None) == (asked, f"source of patches: {asked}, as configured")


def test_records_are_measured_without_decoding(config, cases):
  shapes = [case.image.shape for case in cases]
  assert cases.bytes_together() == 3 * len(cases) * np.prod(np.max(shapes, axis=0))
  grid = cases.dataset.grid(cases.ids[0])
  assert working_grid(grid, config.data.spacing_mm).shape == shapes[0]


def test_a_set_that_no_memory_holds_is_refused_unread(config, phantoms):
  config = with_keys(config, {"data.dir": str(phantoms), "data.spacing_mm": 1e-3})
  cases = open_fold(config.data).load("training")
  with pytest.raises(UserError, match=f"{cases.ids[0]}: voxels of 0.001 mm in its field"):
    choose_source(config.data, cases)


def test_a_quarter_of_the_devices_memory_is_the_limit(config, cases, monkeypatch):
  needed = cases.bytes_together()
  for limit, chosen in ((4 * needed, "resident"), (4 * needed - 4, "streaming")):
    device = _Device({"bytes_limit": limit})
    monkeypatch.setattr(sources.jax, "local_devices", lambda device=device: [device])
    kind, line = choose_source(config.data, cases)
    assert kind == chosen
    assert line.startswith(f"source of patches: {chosen} (the training set takes 0.00 GiB")
    assert "device's memory" in line


def test_without_device_memory_the_hosts_counts(config, cases, monkeypatch):
  for limit, chosen in ((sources.host_bytes(), "resident"), (1000, "streaming")):
    monkeypatch.setattr(sources, "host_bytes", lambda limit=limit: limit)
    kind, line = choose_source(config.data, cases)
    assert kind == chosen
    assert "host's memory" in line


def test_simulated_devices_share_the_hosts_memory(config, cases, monkeypatch):
  monkeypatch.setattr(sources, "host_bytes", lambda: 4 * cases.bytes_together())
  assert choose_source(config.data, cases)[0] == "resident"
  monkeypatch.setattr(sources.jax, "local_device_count", lambda: 2)  # each has a copy
  assert choose_source(config.data, cases)[0] == "streaming"
