"""The tour, a page and a notebook: their blocks and cells run, on the tiny phantoms.

Both are of one run, which the page's command trains, so that the tests train it once. What is done
with a scan of the reader's own, whose name is in capitals, is not run here.
"""

import ast
import contextlib
import importlib
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_answer import list_beside
from tests.configs import small_config
from tests.conftest import ROOT, flags_of, run_command

NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"
PAGE = ROOT / "docs" / "start" / "tour.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWN = re.compile(r"[A-Z_]+(\.|$)")
NAMED = re.compile(r"`([\w/.]+\.(?:gz|json|png|html))`")
# Single gates: less to compile, and still two levels of them.
SMALL = [
  *(flag for flag in flags_of(small_config()) if "dataset" not in flag),
  "--config.model.gates=1",
]


def code_cells() -> list[dict]:
  cells = json.loads(NOTEBOOK.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs():
  assert [cell for cell in code_cells() if cell["outputs"] or cell["execution_count"]] == []


def test_what_it_imports_of_this_project_exists():
  trees = [ast.parse("".join(cell["source"])) for cell in code_cells()]
  trees += [ast.parse(path.read_text()) for path in (ROOT / "docs").rglob("*.py")]
  trees += [ast.parse(block) for language, block in BLOCK.findall(PAGE.read_text()) if language]
  nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
  own = [node for node in nodes if node.module.startswith(("attn_unet_jax", "tfds_pancreas"))]
  assert own
  for node in own:
    module = importlib.import_module(node.module)
    assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_each_block_reads_what_an_earlier_one_has_made():
  text, made = PAGE.read_text(), set()
  for language, block in BLOCK.findall(text):
    for read, written in map(files_of_call if language else files_of_command, steps(block)):
      assert {name for name in read if not OWN.match(name)} <= made, block
      made |= written
  named = set(NAMED.findall(text))
  assert len(named) > 3
  assert named <= made


def steps(block):
  """The commands of a block, or its calls of Python."""
  if block.startswith("python -m"):
    return block.splitlines()
  return [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]


def files_of_command(line):
  """What a command of the tour reads and what it writes: records, runs, scans."""
  _, _, module, *words = shlex.split(line)
  flags = dict(word.removeprefix("--").partition("=")[::2] for word in words)
  workdir, verb = flags.get("workdir"), module.rpartition(".")[2]
  if verb == "build":
    return set(), {flags["dataset"], flags["data_dir"]}
  if verb == "main":
    data = load_experiment(flags["config"]).data
    return {data.dataset, data.dir}, {workdir}
  if verb == "report":
    return {workdir}, {f"{workdir}/report.html"}
  assert verb == "predict"
  beside = AnswerOptions(as_json="json" in flags, preview="preview" in flags)
  written = [flags["output"], *map(str, list_beside(Path(flags["output"]), beside))]
  return {flags["input"], *filter(None, [workdir])}, set(written)


def files_of_call(call):
  """The same of a call of Python."""
  given = {one.value for one in call.args if isinstance(one, ast.Constant)}
  reads = ast.unparse(call.func) == "open_records"
  return (given, set()) if reads else (set(), given)


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
  """Follows the page: its blocks run as they stand, but for the size of data and network.

  Returns the folder, and what each command printed.
  """
  folder, printed = tmp_path_factory.mktemp("tour"), {}
  with contextlib.chdir(folder):
    for language, block in BLOCK.findall(PAGE.read_text()):
      block = block.replace("phantom_ct/demo", "phantom_ct/tiny")
      if language == "python":
        exec(compile(block, PAGE.name, "exec"), {})
        continue
      if "SCAN" in block:
        continue
      _, _, module, *flags = shlex.split(block)
      if module == "attn_unet_jax.main":
        flags += [*SMALL, "--config.data.dataset=phantom_ct/tiny"]
      # The build is no fork of a command: it has to find the project by itself.
      env = {"PYTHONPATH": str(ROOT)} if module.startswith("tfds_pancreas") else None
      done = run_command(module, *flags, cwd=folder, env=env, timeout=3000)
      assert done.returncode == 0, done.stderr
      printed[module.rpartition(".")[2]] = done.stdout
  return folder, printed


@pytest.mark.soak
def test_the_page_goes_from_data_to_where_the_network_looks(toured):
  folder, printed = toured
  assert [*printed] == ["build", "main", "predict", "report"]
  assert "epoch 2/2" in printed["main"]
  # So short a training finds nothing: the mask is empty, and drawn.
  assert (folder / "mask.nii.gz").is_file()
  assert (folder / "mask.png").stat().st_size > 1000
  (pancreas,) = json.loads((folder / "mask.json").read_text())["classes"]
  assert pancreas["name"] == "pancreas"
  page = (folder / "runs" / "tour" / "report.html").read_text()
  (data,) = [line for line in page.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  assert "attention level3/0" in data["shown"][0]["maps"]
  assert "level3/0: mean coefficient" in [panel["title"] for panel in data["gates"]]


@pytest.mark.soak
def test_the_cells_show_the_run_of_the_page(toured, monkeypatch, capsys):
  """Each cell runs in one namespace, as in Jupyter; the run is there, and is only tested again."""
  plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `notebook` is not installed")
  plt.switch_backend("Agg")
  shown = []
  monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
  monkeypatch.setenv("DEMO_FLAGS", shlex.join(SMALL))
  monkeypatch.setenv("DEMO_DATASET", "phantom_ct/tiny")
  monkeypatch.setenv("DEMO_FOLDER", str(toured[0]))
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
  monkeypatch.chdir(NOTEBOOK.parent)
  namespace: dict = {}
  for cell in code_cells():
    exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), namespace)
  printed = capsys.readouterr().out
  assert "resuming" in printed
  assert f"over {len(namespace['test'])} phantoms" in printed
  assert "report.html" in printed
  # A phantom, the losses, two predictions and the gates; an outline of the organ in each slice.
  assert len(shown) == 5
  outlined = [len(figure.axes[0].collections) for figure in (shown[0], *shown[2:4])]
  assert all(count >= 1 for count in outlined)
  assert [len(ax.lines) for ax in shown[4].axes] == [3] * len(namespace["gates"])
  plt.close("all")
