"""What an export writes and what it refuses, and that its runner needs nothing of ours."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.config.stored import to_json
from attn_unet_jax.inference import run_exported
from attn_unet_jax.inference.ensemble import EnsembleSystem
from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.inference.run_exported import open_network
from attn_unet_jax.inference.segment import make_mask, predict_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.models.layers import Conv
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.resample import resample_volume
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import export_network
from attn_unet_jax.workflows import export_run as workflow
from attn_unet_jax.workflows.export_run import export_run
from attn_unet_jax.workflows.load_run import BestCheckpoint, LoadedRun
from attn_unet_jax.workflows.model_card import ExportedAs, describe_model
from benchmarks.orientations import on_axes
from tests.configs import with_keys
from tests.drawn_ct import drawn_ct
from tests.inference.test_exported_window import OneConv, draw_parameters


class Sorted(OneConv):
  """A network that sorts, which no rule of ours writes as ONNX."""

  @nn.compact
  def __call__(self, x, train):
    return jnp.sort(Conv(self.num_classes)(x), 1), {}


STEPS = Postprocessing(smallest_ml=2.0)
NEEDED = {"jax", "nibabel", "numpy", "scipy"}
GROWING = SimpleNamespace(answer_depends_on="surroundings", output_margin=(2, 2, 2))


@pytest.fixture
def offer(config, monkeypatch, tmp_path):
  """Makes runs of a small network with changed keys; returns their folders."""
  runs = {}

  def make(*changes, module=None):
    for number, keys in enumerate(changes):
      folder = tmp_path / f"run{number}"
      folder.mkdir()
      own = with_keys(config, {"data.spacing_mm": 9.0, **keys})
      (folder / "config.json").write_text(to_json(own))
      variables = draw_parameters(OneConv(), number)
      runs[folder] = BestCheckpoint(own, ("pancreas",), module or OneConv(), variables, 7)
    # Building the network for its size takes a second.
    monkeypatch.setattr("attn_unet_jax.workflows.run_facts.count_parameters", lambda _: 5)
    monkeypatch.setattr(workflow, "load_networks", lambda folder: [runs[folder]])
    loaded = LoadedRun(config, ("pancreas",), None, 7, postprocessing=STEPS)
    monkeypatch.setattr(workflow, "open_ensemble", lambda _: loaded)
    return runs

  return make


class FormedConv(nn.Module):
  """One convolution of a form that needs a package."""

  conv: str = "onednn"
  num_classes: int = 2
  patch_multiple = (1, 1, 1)
  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    return Conv(self.num_classes, form=self.conv)(x), {}


def test_an_exported_network_calls_no_library_of_this_machine(config):
  found = BestCheckpoint(config, ("pancreas",), FormedConv(), draw_parameters(OneConv()), 7)
  exported = export_network.export_network([Path("run")], [found], "stablehlo")
  assert b"attn_unet_jax_onednn" not in exported.content


def test_a_run_becomes_a_network_a_contract_and_a_runner(offer, tmp_path):
  runs = offer({"inference.largest_component": True})
  ((workdir, run),) = runs.items()
  summary = {
    "part": "test",
    "checkpoint_step": 7,
    "cases": 2,
    "classes": {"pancreas": {"dsc": {"mean": 0.5, "n": 2}}},
    "counts": {},
    "postprocessing": dataclasses.asdict(STEPS),
    "worst": {"pancreas": [{"case": "NAME", "dsc": 0.1}]},
  }
  (workdir / "evaluation").mkdir()
  (workdir / "evaluation" / "summary.json").write_text(json.dumps(summary))
  files = export_run([workdir], tmp_path / "out")
  names = ["network.stablehlo", "network.json", "run_exported.py", "MODEL_CARD.md"]
  assert [path.name for path in files] == names
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
    path.name for path in files
  )
  text = files[1].read_text()
  about = json.loads(text)
  assert about["scan"]["spacing_mm"] == 9.0
  assert about["windows"]["shape"] == [16, 16, 16]
  assert about["windows"]["region"] == "whole"
  assert about["classes"] == {"background": 0, "pancreas": 1}
  assert "-900 HU" in about["after"].pop("body")
  assert about["after"] == {
    "within_body": False,
    "threshold": 0.5,
    "largest": False,
    "smallest_ml": 2.0,
    "fill_holes": False,
    "values": [],
    "one_piece": [],
    "one_piece_weights": "a voxel counts log(q / (1 - q)) + 1e-6, q = clip(p, 0.5, 1 - 1e-6)",
    "largest_component": True,
  }
  assert about["network"]["inputs"] == [
    {"name": "hu", "dtype": "float32", "shape": ["n", "16", "16", "16"]}
  ]
  (own,) = about["runs"]
  assert own["name"] == "run0"
  assert len(own["digest"]) == 64
  assert own["test_scores"]["classes"] == summary["classes"]
  # Neither the place of the run nor a patient.
  for told in (text, files[3].read_text()):
    assert str(tmp_path) not in told
    assert "NAME" not in told
  assert "| dsc | 0.500 |" in files[3].read_text()
  system = SlidingWindow(run.config, run.module).use(run.variables)
  hu = drawn_ct().array[:16, :16, :16]
  found = np.asarray(open_network(files[0], about)(hu[None].astype(np.float32)))[0]
  expected = np.asarray(system.window(run.variables, hu, 0.0, 1.0))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  "changes",
  [{"part": "validation"}, {"checkpoint_step": 6}, {"tta": "x"}, {"postprocessing": None}, None],
  ids=["part", "step", "tta", "steps", "none"],
)
def test_scores_of_something_else_are_not_told(offer, changes):
  ((workdir, run),) = offer({}).items()
  if changes:
    (workdir / "evaluation").mkdir()
    scored = {"part": "test", "checkpoint_step": 7, "postprocessing": dataclasses.asdict(STEPS)}
    told = {**scored, "cases": 2, "classes": {"pancreas": {"dsc": {"mean": 0.5}}}, **changes}
    (workdir / "evaluation" / "summary.json").write_text(json.dumps(told))
  assert workflow._describe_run(workdir, [run], STEPS)["test_scores"] is None
  card = describe_model(workdir, exported=ExportedAs(7, STEPS))
  assert "It has not been tested" in card
  assert "0.500" not in card
  assert "| steps after the network | components from 2 ml |" in card


@pytest.mark.parametrize(
  ("changes", "module", "said"),
  [
    ([{"data.boxes": "b.json"}], None, r"run0: works inside boxes \(config\.data\.boxes\)"),
    (
      [{"inference.window": "large"}],
      None,
      r"run0: its windows adapt .*config\.inference\.window=large",
    ),
    ([{"inference.window": "plan"}], GROWING, r"run0: its windows adapt .*window=plan\)"),
    (
      [{}, {"data.patch": (8, 8, 8)}],
      None,
      r"run1: has windows of shape \(8, 8, 8\), and .*run0 of \(16",
    ),
    ([{}, {"inference.overlap": 0.25}], None, r"run1: has windows of overlap 0\.25, and"),
    ([{}, {"inference.window": "plan"}], None, r"run1: has windows of region body, and"),
  ],
)
def test_what_cannot_be_exported_is_refused_by_name(offer, tmp_path, changes, module, said):
  runs = offer(*changes, module=module)
  with pytest.raises(UserError, match=said):
    export_run([*runs], tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_a_run_of_several_stages_is_refused_by_name(config, tmp_path):
  (tmp_path / "run").mkdir()
  staged = with_keys(config, {"stages.count": 2})
  (tmp_path / "run" / "config.json").write_text(to_json(staged))
  with pytest.raises(UserError, match=r"run: a run of several stages; name one of them, such as"):
    export_run([tmp_path / "run"], tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.onnx", "a.json", "file"])
def test_an_output_that_is_no_network_is_refused(offer, tmp_path, name):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=rf"--output=.*{name}: name a folder, or a file that ends in"):
    export_run([*offer({})], tmp_path / name)


def test_the_runner_imports_nothing_but_what_it_names():
  tree = ast.parse(Path(run_exported.__file__).read_text())
  roots = {
    name.partition(".")[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Import | ast.ImportFrom)
    for name in (
      [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    )
  }
  assert roots - set(sys.stdlib_module_names) == NEEDED


@pytest.mark.parametrize(
  "changes",
  [
    [{"model.dtype": "bfloat16", "inference.class_weights": (1.0, 3.0)}],
    [{"data.normalisation": "zscore"}, {}],
  ],
  ids=["one", "two"],
)
def test_onnx_says_what_the_runs_say(offer, tmp_path, changes):
  onnxruntime = pytest.importorskip("onnxruntime")
  runs = offer(*changes)
  files = export_run([*runs], tmp_path / "out", "onnx")
  assert [path.name for path in files] == ["network.onnx", "network.json", "MODEL_CARD.md"]
  assert {*(tmp_path / "out").iterdir()} == {*files}
  about = json.loads(files[1].read_text())["network"]
  assert about["checked"]["difference"] < 1e-5
  assert about["output"]["shape"] == ["n", "16", "16", "16", "2"]
  session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
  names = [one["name"] for one in about["inputs"]]
  assert names == [one.name for one in session.get_inputs()]
  part = drawn_ct().array[:16, :16, :16]
  hu = np.stack([part, np.flip(part, 0)])
  scalars = (-40.0, 250.0)
  given = [hu, *scalars][: len(names)]
  fed = {name: np.asarray(one, np.float32) for name, one in zip(names, given, strict=True)}
  (found,) = session.run(None, fed)
  answers = [
    [np.asarray(SlidingWindow(r.config, r.module).window(r.variables, one, *scalars)) for one in hu]
    for r in runs.values()
  ]
  np.testing.assert_allclose(found, np.mean(answers, 0), rtol=0, atol=1e-5)


def test_onnx_that_differs_is_not_written(offer, tmp_path, monkeypatch):
  pytest.importorskip("onnxruntime")
  monkeypatch.setattr(export_network, "compare_in_onnxruntime", lambda *_, **__: 2e-5)
  with pytest.raises(UserError, match=r"run0: its probabilities in onnxruntime differ by 2e-05"):
    export_run([*offer({})], tmp_path / "out", "onnx")
  assert not (tmp_path / "out").exists()


def test_a_network_that_onnx_cannot_express_is_named(offer, tmp_path):
  pytest.importorskip("onnxruntime")
  said = r"run0: attention_unet cannot be written as ONNX \(the operation sort\); use --format="
  with pytest.raises(UserError, match=said):
    export_run([*offer({}, module=Sorted())], tmp_path / "out", "onnx")
  assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes",
  [
    [{"inference.window": "plan", "data.patch": (13, 12, 8), "inference.within_body": True}],
    [{"data.normalisation": "zscore", "data.blur_mm": 4.0}, {}],
  ],
  ids=["one", "two"],
)
def test_the_runner_makes_the_mask_of_a_prediction(offer, config, tmp_path, changes):
  """In a Python that does not find the package."""
  runs = offer(*changes)
  path = tmp_path / "out" / "pancreas.stablehlo"
  export_run([*runs], path)
  scan = on_axes(drawn_ct(), "PIL")
  write_nifti(tmp_path / "scan.nii.gz", scan)
  runner = str(path.with_name("run_exported.py"))
  done = subprocess.run(
    [sys.executable, "-I", runner, "scan.nii.gz", "mask.nii.gz", str(path)],
    cwd=tmp_path,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  image = nib.load(tmp_path / "mask.nii.gz")
  np.testing.assert_array_equal(image.affine, scan.affine)
  found = np.asarray(image.dataobj)
  first = next(iter(runs.values()))
  system = EnsembleSystem(
    [SlidingWindow(one.config, one.module).use(one.variables) for one in runs.values()]
  )
  answer = predict_scan(scan, system, first.config)
  expected = make_mask(answer, first.config, STEPS).array
  assert 0.01 < np.mean(expected) < 0.99
  differing = found != expected
  if differing.any():  # where both classes are as likely
    shares = Volume(answer.values[..., 1], answer.grid.affine)
    probability = on_axes(resample_volume(shares, answer.canonical), "PIL").array
    assert np.abs(probability[differing] - 0.5).max() < 1e-5
