"""The packages import in one direction, function-level imports counted; text costs no JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A unit imports only what stands below it. Names on one line do not import each other.
FLOORS = (
  (
    "__main__",
    "demo",
    "main",
    "predict",
    "evaluate",
    "serve",
    "export",
    "check",
    "compare",
    "report",
    "info",
    "convert",
    "api",
  ),
  ("serving",),
  ("workflows",),
  ("config",),
  ("stages",),
  ("evaluation",),
  ("weights",),
  ("inference",),
  ("training",),
  ("inspection",),
  ("patches",),
  ("cases", "graphs"),
  ("painting",),
  ("tfds_pancreas",),
  ("runs",),
  ("augment", "losses", "models"),
  ("drawing", "labels"),
  ("volumes",),
  ("runtime",),
)
HEIGHT = {unit: len(FLOORS) - floor for floor, units in enumerate(FLOORS) for unit in units}
TOP = {
  "attn_unet_jax"
}  # the package itself: its version, and the functions of `api` when asked for

TEXT_ONLY = (
  "attn_unet_jax",
  "attn_unet_jax.main",
  "attn_unet_jax.config",
  "attn_unet_jax.config.flags",
  "attn_unet_jax.config.stored",
  "attn_unet_jax.config.reference",
  "attn_unet_jax.labels",
  "attn_unet_jax.cases.folds",
  "attn_unet_jax.evaluation.comparison_text",
  "attn_unet_jax.runs.metrics_csv",
  "tfds_pancreas.build",
  "experiments.pancreas",
)


def _modules(root: Path) -> dict[str, Path]:
  found = {}
  for package in ("attn_unet_jax", "tfds_pancreas"):
    for path in (root / package).rglob("*.py"):
      name = ".".join(path.relative_to(root).with_suffix("").parts)
      found[name.removesuffix(".__init__")] = path
  return found


def _unit(module: str) -> str:
  parts = module.split(".")
  return parts[1] if parts[0] == "attn_unet_jax" and len(parts) > 1 else parts[0]


def _imports(source: str, modules: dict[str, Path]) -> set[str]:
  """The project's modules that a source imports, wherever in it."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        found.add(inner if inner in modules else node.module)
    elif isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
  return {name for name in found if name in modules}


def _arrows(root: Path) -> set[tuple[str, str]]:
  modules = _modules(root)
  return {
    (_unit(module), _unit(imported))
    for module, path in modules.items()
    for imported in _imports(path.read_text(), modules)
    if _unit(module) != _unit(imported)
  }


def _faults(arrows: set[tuple[str, str]]) -> list[str]:
  """Imports that run up, or sideways."""
  return sorted(
    f"{unit} imports {imported}"
    for unit, imported in arrows
    if unit not in TOP and imported not in TOP and HEIGHT[imported] >= HEIGHT[unit]
  )


def test_packages_import_only_what_stands_below_them():
  assert _faults(_arrows(ROOT)) == []


def test_every_unit_has_its_floor():
  units = {_unit(module) for module in _modules(ROOT)} - TOP
  assert units == set(HEIGHT)


def test_an_import_that_runs_up_would_be_found(tmp_path):
  for name, source in {
    "attn_unet_jax/volumes/box.py": "def cut():\n  from attn_unet_jax.cases import boxes\n",
    "attn_unet_jax/cases/boxes.py": "",
    "attn_unet_jax/losses/dice.py": "import attn_unet_jax.models.unet\n",
    "attn_unet_jax/models/unet.py": "from attn_unet_jax.runtime import errors\n",
    "attn_unet_jax/runtime/errors.py": "",
  }.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
  assert _faults(_arrows(tmp_path)) == ["losses imports models", "volumes imports cases"]


@pytest.mark.slow
def test_a_folder_is_worked_on_without_tensorflow_datasets():
  modules = "attn_unet_jax.workflows.segment_scans, attn_unet_jax.workflows.train_run"
  code = f"import sys, {modules}; sys.exit('tensorflow_datasets' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr or "tensorflow_datasets is loaded"


@pytest.mark.parametrize("module", TEXT_ONLY)
def test_what_only_parses_text_loads_no_jax(module):
  code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr or f"{module} loads JAX"


def test_no_test_imports_a_benchmark_with_flags():
  """Flags of two commands of one name cannot be in one process, and pytest imports all tests."""
  commands = {
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "DEFINE" in path.read_text()
  }
  assert "real_ct" in commands
  for path in sorted((ROOT / "tests").rglob("test_*.py")):
    for node in ast.parse(path.read_text()).body:  # those inside functions come later
      if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks"):
        names = {node.module.rpartition(".")[2], *(alias.name for alias in node.names)}
        assert not names & commands, f"{path}:{node.lineno}"
