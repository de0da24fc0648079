"""The notebook of the demo: its cells run, on the tiny phantoms, and it holds no outputs."""

import ast
import importlib
import json
import os

import pytest

from tests.configs import small_config
from tests.conftest import ROOT, flags_of

NOTEBOOK = ROOT / "notebooks" / "demo.ipynb"


def code_cells() -> list[dict]:
  cells = json.loads(NOTEBOOK.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs():
  assert [cell for cell in code_cells() if cell["outputs"] or cell["execution_count"]] == []


def test_what_it_imports_of_this_project_exists():
  trees = [ast.parse("".join(cell["source"])) for cell in code_cells()]
  trees += [ast.parse(path.read_text()) for path in (ROOT / "docs").rglob("*.py")]
  nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
  own = [node for node in nodes if node.module.startswith(("attn_unet_jax", "tfds_pancreas"))]
  assert own
  for node in own:
    module = importlib.import_module(node.module)
    assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.slow
def test_the_cells_train_the_demo_and_show_it(tmp_path, monkeypatch, capsys):
  """Each cell runs in one namespace, as in Jupyter; training is as small as a test can be."""
  plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `notebook` is not installed")
  plt.switch_backend("Agg")
  shown = []
  monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
  flags = [flag for flag in flags_of(small_config()) if "dataset" not in flag]
  monkeypatch.setenv("DEMO_FLAGS", " ".join(f"'{flag}'" for flag in flags))
  monkeypatch.setenv("DEMO_DATASET", "phantom_ct/tiny")
  monkeypatch.setenv("DEMO_FOLDER", str(tmp_path))
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
  monkeypatch.chdir(NOTEBOOK.parent)
  namespace: dict = {}
  for cell in code_cells():
    exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), namespace)
  printed = capsys.readouterr().out
  assert "epoch 2/2" in printed
  assert f"over {len(namespace['test'])} phantoms" in printed
  # A phantom, the losses, and two predictions: each drawn, with an outline of the organ.
  assert len(shown) == 4
  outlined = [len(figure.axes[0].collections) for figure in (shown[0], *shown[2:])]
  assert all(count >= 1 for count in outlined)
  plt.close("all")
