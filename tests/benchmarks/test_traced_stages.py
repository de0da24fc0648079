"""What a stage takes is counted where it is done, and told by the best start of each way."""

import types

import numpy as np
import pytest

from benchmarks import traced_stages


def test_a_wrapped_function_does_its_work_and_its_stage_has_time_and_memory(monkeypatch):
  class Reader:
    def read(self, n):
      return np.ones(n).sum()

  module = types.SimpleNamespace(Reader=Reader, double=lambda x: 2 * x)
  monkeypatch.setattr(traced_stages.importlib, "import_module", lambda _: module)
  stages = {}
  traced_stages.watch_function("read", "any", "Reader.read", stages)
  traced_stages.watch_function("double", "any", "double", stages)
  assert module.double(4) == 8
  assert stages["double"]["seconds"] < 1
  size = 40_000_000
  assert module.Reader().read(size) == size
  assert module.Reader().read(10) == 10
  # The large array is let go, but its stage has held it; the other one came before.
  assert stages["read"]["peak_gib"] > stages["double"]["peak_gib"] + 0.9 * size * 8 / 2**30


def _use(seconds, gib):
  return {"seconds": seconds, "peak_gib": gib}


def test_ways_are_told_by_their_best_start_and_their_greatest_memory():
  starts = [
    {"the network": _use(2.0, 1.0), "from start to end": _use(3.0, 1.0)},
    {"the network": _use(1.5, 1.25), "from start to end": _use(4.0, 1.0)},
  ]
  ways = dict(traced_stages.summarise_starts({"float32": starts, "bfloat16": []}))
  assert [*ways] == ["float32"]
  assert ways["float32"]["the network"] == {"seconds": 1.5, "peak_gib": 1.25}
  text = traced_stages.write_table(ways)
  assert "| the network | 1.5 s, 1.25 GiB |" in text
  assert "| from start to end | 3.0 s, 1.00 GiB |" in text
  assert "| write the mask |  |" in text


@pytest.mark.parametrize(("module", "name"), traced_stages.STAGES.values())
def test_every_stage_is_a_function_of_the_program(module, name):
  owner = traced_stages.importlib.import_module(module)
  for one in name.split("."):
    owner = getattr(owner, one)
  assert callable(owner)
