"""Which engine computes a run, that both say the same, and what is kept of a written network."""

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.models.build import external_options
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import segment_scans as command
from attn_unet_jax.workflows import use_engine as workflow
from attn_unet_jax.workflows.load_run import BestCheckpoint, LoadedNetwork, LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions, EngineOptions
from attn_unet_jax.workflows.use_engine import use_engine
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct
from tests.inference.test_exported_window import OneConv, draw_parameters
from tests.workflows.test_export_run import Sorted

AUTO, JAX, OPENVINO = (EngineOptions(name) for name in ("auto", "jax", "openvino"))
# Not `importorskip`: that would import what reports to the maker of OpenVINO.
needs_openvino = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("openvino", "onnx")),
  reason="openvino and onnx are not installed",
)


@pytest.fixture
def offer(config, tmp_path, monkeypatch):
  """Makes a run of a small network with changed keys."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  (tmp_path / "run").mkdir()

  def make(changes=None, module=None, seed=0):
    module, own = module or OneConv(), with_keys(config, changes or {})
    variables = draw_parameters(module, seed)
    found = BestCheckpoint(own, ("pancreas",), module, variables, 7)
    system = SlidingWindow(own, module).use(variables)
    networks = (LoadedNetwork(tmp_path / "run", found, system),)
    return LoadedRun(own, ("pancreas",), system, 7, networks=networks)

  return make


def scan():
  ct = drawn_ct()
  return Volume(ct.array[:20, :18, :16], ct.affine)


def list_kept(folder):
  return sorted(folder.glob("**/*.onnx"))


@needs_openvino
@pytest.mark.parametrize(
  "changes",
  [
    {"inference.class_weights": (1.0, 3.0)},
    {"data.normalisation": "zscore", "inference.window": "plan"},
  ],
)
def test_openvino_says_what_jax_says(offer, capsys, changes):
  expected = offer(changes).system.predict(scan())
  trained = use_engine(offer(changes), AUTO)
  assert trained.engine.startswith("openvino 20")
  assert trained.engine.endswith(", float32")
  assert "engine: OpenVINO 20" in capsys.readouterr().out
  found = trained.system.predict(scan())
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  assert found[..., 1].std() > 0.02


@needs_openvino
def test_a_written_network_is_kept_for_its_checkpoint(offer, tmp_path, monkeypatch):
  use_engine(offer(), OPENVINO)
  (first,) = list_kept(tmp_path)
  assert first.parent == tmp_path / "run" / "engine"
  monkeypatch.setattr(workflow, "_write", lambda *_: pytest.fail("written again"))
  use_engine(offer(), OPENVINO)
  monkeypatch.undo()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  # Another checkpoint's takes its place, and a damaged one is written again.
  use_engine(offer(seed=1), OPENVINO)
  (second,) = list_kept(tmp_path)
  content = second.read_bytes()
  assert second != first
  second.write_bytes(content[:-1])
  use_engine(offer(seed=1), OPENVINO)
  assert second.read_bytes() == content


@needs_openvino
def test_a_run_that_is_read_only_is_kept_elsewhere(offer, tmp_path, monkeypatch):
  monkeypatch.setattr(workflow.os, "access", lambda path, _: path != tmp_path / "run")
  use_engine(offer(), OPENVINO)
  (path,) = list_kept(tmp_path)
  assert path.parent == tmp_path / "cache" / "attn_unet_jax" / "engine"


@pytest.mark.parametrize("name", ["openvino", "onnx", None])
def test_auto_is_jax_where_a_package_is_missing_or_there_is_no_network(offer, monkeypatch, name):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == name else find(one))
  trained = offer() if name else LoadedRun(offer().config, ("pancreas",), None, 7)
  assert use_engine(trained, AUTO) is trained
  assert trained.engine == f"jax {jax.__version__}"


@pytest.mark.parametrize("changes", [{"model.dtype": "bfloat16"}, {"deterministic": True}])
def test_auto_is_jax_where_openvino_would_say_something_else(offer, changes):
  trained = offer(changes)
  assert use_engine(trained, AUTO) is trained


@needs_openvino
def test_auto_is_jax_on_an_accelerator(offer, monkeypatch):
  monkeypatch.setattr(workflow.jax, "default_backend", lambda: "gpu")
  trained = offer()
  assert use_engine(trained, AUTO) is trained


@needs_openvino
def test_a_network_that_openvino_cannot_run_is_named(offer, capsys, tmp_path):
  trained = use_engine(offer(module=Sorted()), AUTO)
  assert trained.engine.startswith("jax")
  said = "OpenVINO cannot: attention_unet (the operation sort)"
  assert f"computed by JAX, since {said}" in capsys.readouterr().out
  with pytest.raises(UserError, match=r"--engine=openvino: attention_unet \(the operation sort\)"):
    use_engine(trained, OPENVINO)
  assert not list_kept(tmp_path)


FAULTS = (
  ImportError("no libtbb.so"),
  RuntimeError("no CPU"),
  ValueError("a rule"),
  KeyError("axis"),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: type(one).__name__)
def test_jax_computes_where_openvino_fails(offer, monkeypatch, capsys, fault):
  def fail(*_, **__):
    raise fault

  monkeypatch.setattr(workflow, "_is_better", lambda _: True)
  monkeypatch.setattr(workflow, "OpenVinoEngine", fail)
  trained = offer()
  assert use_engine(trained, AUTO) is trained
  said = str(fault.args[0])
  assert f"computed by JAX, since OpenVINO cannot: {said}" in capsys.readouterr().out
  with pytest.raises(UserError, match=f"^--engine=openvino: {said}; use --engine=jax$"):
    use_engine(trained, OPENVINO)


class Engine:
  """An engine that reads what it is given, and fails to compile it if told so."""

  fault = None

  def __init__(self, write, *_, **__):
    self._write = write

  def prepare(self, shape):
    self._write(shape)
    if self.fault:
      raise self.fault


@pytest.fixture
def written(monkeypatch):
  """The windows for which a network was written, by a fake engine."""
  windows = []

  def write(_, window):
    windows.append(window)
    return b"onnx"

  monkeypatch.setattr(workflow, "_is_better", lambda _: True)
  monkeypatch.setattr(workflow, "import_openvino", lambda _: SimpleNamespace(__version__="2026-a"))
  monkeypatch.setattr(workflow, "OpenVinoEngine", Engine)
  monkeypatch.setattr(workflow, "_write", write)
  return windows


def test_a_network_that_does_not_compile_is_computed_by_jax(offer, written, monkeypatch, capsys):
  monkeypatch.setattr(Engine, "fault", RuntimeError("Input type is\nnot boolean"))
  trained = offer()
  assert use_engine(trained, AUTO) is trained
  assert trained.system._engine is None
  assert "JAX, since OpenVINO cannot: Input type is not boolean" in capsys.readouterr().out
  assert written == [trained.config.window]


def test_a_network_is_written_again_for_another_format(offer, written, monkeypatch):
  use_engine(offer(), AUTO)
  use_engine(offer(), AUTO)
  assert len(written) == 1
  monkeypatch.setattr(workflow, "_FORMAT", workflow._FORMAT + 1)
  use_engine(offer(), AUTO)
  assert len(written) == 2


def test_a_network_from_outside_the_package_is_not_kept(offer, written, tmp_path):
  trained = offer()
  (network,) = trained.networks
  path = "tests.inference.test_exported_window:OneConv"
  model = external_options(path)(name=path)
  config = dataclasses.replace(network.found.config, model=model)
  found = dataclasses.replace(network.found, config=config)
  networks = (dataclasses.replace(network, found=found),)
  trained = dataclasses.replace(trained, config=config, networks=networks)
  use_engine(trained, AUTO)
  use_engine(trained, AUTO)
  assert len(written) == 2
  assert not list_kept(tmp_path)


@pytest.mark.parametrize(
  ("options", "said"),
  [
    (EngineOptions("jax", "bfloat16"), r"--precision=bfloat16: only OpenVINO .*-e '\.\[cpu"),
    (OPENVINO, r"--engine=openvino needs openvino, .*pip install -e '\.\[cpu\]'"),
  ],
)
def test_what_is_missing_is_named(offer, monkeypatch, options, said):
  monkeypatch.setitem(__import__("sys").modules, "openvino", None)
  with pytest.raises(UserError, match=said):
    use_engine(offer(), options)


@needs_openvino
def test_the_answer_names_its_engine(offer, tmp_path, monkeypatch):
  monkeypatch.setattr(command, "open_ensemble", lambda _: offer({"data.spacing_mm": 9.0}))
  write_nifti(tmp_path / "scans" / "a.nii.gz", scan())
  options = {
    name: AnswerOptions(as_json=True, engine=EngineOptions(name)) for name in ("auto", "jax")
  }
  for name, one in options.items():
    command.segment_scans([tmp_path], tmp_path / "scans", tmp_path / name, one)
    told = json.loads((tmp_path / name / "a.json").read_text())["engine"]
    assert told.startswith("openvino 20" if name == "auto" else "jax ")
  assert options["auto"].written == options["jax"].written
  assert AnswerOptions(engine=EngineOptions("auto", "bfloat16")).written != options["jax"].written
