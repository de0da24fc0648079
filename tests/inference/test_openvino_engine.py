"""OpenVINO is imported without its reports, and says what it needs."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.inference import openvino_engine
from attn_unet_jax.inference.openvino_engine import (
  OpenVinoEngine,
  import_openvino,
  measure_memory,
)
from attn_unet_jax.runtime.errors import UserError
from tests.workflows.test_use_engine import needs_openvino


def test_nothing_reports_the_use_of_openvino(monkeypatch):
  reports = SimpleNamespace()
  monkeypatch.setitem(sys.modules, "openvino_telemetry", reports)
  seen = []

  def import_extra(*_):
    seen.append(sys.modules["openvino_telemetry"])

  monkeypatch.setattr(openvino_engine, "import_extra", import_extra)
  import_openvino("a test")
  assert seen == [None]  # importing it raises ImportError
  assert sys.modules["openvino_telemetry"] is reports


@needs_openvino
def test_the_stub_is_what_openvino_takes():
  import_openvino("a test")
  assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__.endswith("telemetry_stub")


class Fake:
  """OpenVINO on a processor without bfloat16."""

  Core = lambda _: SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])  # noqa: E731


def test_a_processor_without_bfloat16_is_told(monkeypatch):
  monkeypatch.setattr(openvino_engine, "import_openvino", lambda _: Fake())
  with pytest.raises(UserError, match="--precision=bfloat16: this processor does not"):
    OpenVinoEngine(lambda _: b"", "bfloat16", uses_statistics=False)


def operation(name, size, inputs, readers):
  element = SimpleNamespace(size=4)
  targets = [SimpleNamespace(get_node=lambda n=n: operation(n, 0, 0, ())) for n in readers]
  output = SimpleNamespace(
    get_shape=lambda: [size], get_element_type=lambda: element, get_target_inputs=lambda: targets
  )
  return SimpleNamespace(
    get_friendly_name=lambda: name, inputs=lambda: [None] * inputs, outputs=lambda: [output]
  )


def test_memory_is_that_of_results_that_are_still_needed():
  # a skip of 10 values waits while 7 become 5, and the sum has 20
  model = SimpleNamespace(
    get_ordered_ops=lambda: [
      operation("weights", 1000, 0, ["skip"]),
      operation("skip", 10, 1, ["down", "sum"]),
      operation("down", 7, 1, ["up"]),
      operation("up", 5, 1, ["sum"]),
      operation("sum", 20, 2, []),
    ]
  )
  assert measure_memory(model) == 4 * (10 + 5 + 20)


@needs_openvino
def test_answers_stay_when_the_next_window_is_computed():
  from attn_unet_jax.graphs.window import write_window_model

  def write(shape):
    model = write_window_model(lambda hu: hu[..., None] * 2.0, shape, ["hu"], "cpu", "a test")
    return model.SerializeToString()

  engine = OpenVinoEngine(write, "float32", uses_statistics=False)
  assert engine.prepare((4, 3, 2)) >= 4 * 24
  first = engine.predict(np.full((4, 3, 2), 3, np.int16), 0, 1)
  second = engine.predict(np.full((4, 3, 2), 5, np.int16), 0, 1)
  assert first.shape == (4, 3, 2, 1)
  assert (first == 6).all()
  assert (second == 10).all()
  # Another shape is compiled when it comes.
  assert engine.predict(np.ones((2, 3, 4), np.int16), 0, 1).shape == (2, 3, 4, 1)
