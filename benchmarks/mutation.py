"""How many small faults planted in the numerical modules their tests find: mutation testing.

python -m benchmarks.mutation --output=benchmarks/results/mutation.json

Cosmic Ray writes the faults (mutants): an operator, a comparison or a number is exchanged, a `not`
is put in or taken out, a loop never runs. Each mutant is written into a copy of the project, and
the tests of its module run there until one fails. It is killed if one does, and survives if none
does. A mutant that changes nothing a caller may see is equivalent: `mutation_equivalents.json`
says which are, and why. The score is killed / (mutants - equivalent).

A mutant meets those tests first that call the function that it is in; only if they pass, all of
its module. Of a module with more mutants than `--sample`, so many are drawn by a fixed seed. After
tests were added, `--again=RESULT` tries nothing but the survivors of an earlier result, and gives
the rest as it was.

Left out are mutants that Python or JAX refuse whatever the values (`a @ b` or `a << b` of floats,
`not x` of an array), which any test kills, and those of annotations, of `zip(..., strict=)` and of
`frozen=`, which no correct program notices.
"""

import argparse
import ast
import collections
import contextlib
import datetime
import importlib
import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import parso
import pytest
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast, is_number
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

from benchmarks.result import keep, machine

ROOT = Path(__file__).parents[1]
PACKAGE = "attn_unet_jax"
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.json")

# The tests of each module, those that fail soonest first.
_OF_KEYS = "patches/test_batch.py::test_no_two_draws_of_a_patch_share_a_key"
TESTS: Mapping[str, Sequence[str]] = {
  "losses/cross_entropy.py": ("losses/test_cross_entropy.py", "losses/test_total.py"),
  "losses/dice.py": ("losses/test_dice.py", "losses/test_total.py"),
  "losses/operands.py": (
    "losses/test_cross_entropy.py",
    "losses/test_total.py",
    "losses/test_soft_labels.py",
  ),
  "losses/side.py": ("losses/test_side.py",),
  "losses/total.py": ("losses/test_side.py", "losses/test_total.py", "losses/test_partial.py"),
  "losses/vnet_caffe.py": ("losses/test_vnet_caffe.py", "losses/test_total.py"),
  "patches/schedule.py": ("patches/test_schedule.py", _OF_KEYS),
  "augment/affine.py": ("augment/test_corners.py", "augment/test_augment.py", _OF_KEYS),
  "augment/deformation.py": ("augment/test_deformation.py", _OF_KEYS),
  "augment/gamma.py": ("augment/test_gamma.py",),
  "augment/histogram.py": ("augment/test_histogram.py", _OF_KEYS),
  "augment/intensity.py": ("augment/test_intensity.py", "augment/test_augment.py", _OF_KEYS),
  "augment/options.py": ("augment",),
  "augment/patch.py": (
    "augment/test_patch.py",
    "augment/test_deformation.py",
    "augment/test_augment.py",
    _OF_KEYS,
  ),
  "augment/warp.py": ("augment/test_augment.py", "augment/test_deformation.py"),
  "evaluation/overlap.py": ("evaluation/test_overlap.py",),
  "evaluation/paired_tests.py": ("evaluation/test_paired_tests.py",),
  "evaluation/surface.py": ("evaluation/test_surface.py",),
  "labels.py": ("test_labels.py",),
  "stages/table.py": ("stages/test_table.py",),
}

_ENDS = ("killed", "survived", "equivalent")
_ARITHMETIC, _BITS = "Add|Sub|Mul|Div", "BitAnd|BitOr"
_KINDS = re.compile(
  rf"core/(ReplaceBinaryOperator_({_ARITHMETIC}|FloorDiv|Mod|Pow)_({_ARITHMETIC})"
  rf"|ReplaceBinaryOperator_({_BITS})_({_BITS})"
  r"|ReplaceComparisonOperator_(?!Is)\w+_(?!Is)\w+|ReplaceComparisonOperator_Is\w*_Is\w*"
  r"|ReplaceUnaryOperator_Delete_\w+|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue"
  r"|ReplaceAndWithOr|ReplaceOrWithAnd|NumberReplacer|RemoveDecorator|ZeroIterationForLoop)"
)
# Imported once, before the processes fork; what starts threads or asks for devices is not.
_LIBRARIES = (
  "absl.flags",
  "flax.linen",
  "jax",
  "ml_collections",
  "nibabel",
  "optax",
  "orbax.checkpoint",
  "psutil",
  "scipy.interpolate",
  "scipy.ndimage",
  "scipy.spatial",
  "scipy.stats",
)


class Mutant(NamedTuple):
  """A module's text with one fault, the line that has it, and what stood there."""

  text: str
  line: int
  before: str
  after: str


class DoubledNumber(Operator):
  """Doubles a number with a fraction: one more or less would be too coarse a fault of 1e-5."""

  def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
    """Finds such a number, 0 excepted."""
    if is_number(node) and isinstance(value := ast.literal_eval(node.value), float) and value:
      yield node.start_pos, node.end_pos

  def mutate(self, node: Any, index: int) -> Any:
    """Doubles it."""
    return parso.python.tree.Number(f" {2 * ast.literal_eval(node.value)}", node.start_pos)

  @classmethod
  def examples(cls) -> tuple[()]:
    """Returns none: they are for Cosmic Ray's own tests."""
    return ()


def find_faults(text: str) -> list[tuple[Operator, int]]:
  """Finds which operator of Cosmic Ray could plant a fault in a module where."""
  names = [name for name in plugins.operator_names() if _KINDS.fullmatch(name)]
  nodes, left_out = list(ast_nodes(get_ast(text))), _positions_left_out(text)
  faults: list[tuple[Operator, int]] = []
  for operator in [DoubledNumber(), *(plugins.get_operator(name)() for name in names)]:
    places = (start for node in nodes for start, _ in operator.mutation_positions(node))
    faults += [
      (operator, occurrence)
      for occurrence, start in enumerate(places)
      if not any(low <= start < high for low, high in left_out)
    ]
  return faults


def write_mutant(text: str, operator: Operator, occurrence: int) -> Mutant:
  """Writes the module with one fault."""
  mutated = mutate_code(text, operator, occurrence)
  before, after = text.splitlines(), mutated.splitlines()
  pairs = enumerate(zip(before, after, strict=False))
  line = next((n for n, (old, new) in pairs if old != new), len(before) - 1)
  left = after[line] if len(after) == len(before) else ""
  return Mutant(mutated, line + 1, before[line].strip(), left.strip())


def _positions_left_out(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
  """Returns from where to where annotations, `strict=` and `frozen=` reach."""
  spans: list[ast.expr] = []
  for node in ast.walk(ast.parse(text)):
    spans += [a for a in (getattr(node, "annotation", None), getattr(node, "returns", None)) if a]
    if isinstance(node, ast.keyword) and node.arg in ("strict", "frozen"):
      spans.append(node.value)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
      spans.append(node.value)  # a type's other name
  return [
    ((s.lineno, s.col_offset), (s.end_lineno or s.lineno, s.end_col_offset or 0)) for s in spans
  ]


class _Calls:
  """Notes which functions of a file each test calls, a plugin of pytest."""

  def __init__(self, path: Path, output: Path) -> None:
    self._path, self._output = str(path), output
    self._calls: dict[str, set[int]] = {}

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
    """Runs a test, as pytest's hook of this name, and notes what it calls."""
    called = self._calls.setdefault(item.nodeid, set())

    def note(frame: Any, event: str, _: Any) -> None:
      """Notes the function of a call in the file."""
      if event == "call" and frame.f_code.co_filename == self._path:
        called.add(frame.f_code.co_firstlineno)

    sys.setprofile(note)
    try:
      return (yield)
    finally:
      sys.setprofile(None)

  def pytest_sessionfinish(self) -> None:
    self._output.write_text(json.dumps({test: sorted(c) for test, c in self._calls.items()}))


def _first_line_around(text: str, line: int) -> int | None:
  """Returns where the innermost function around a line begins, decorators included."""
  kinds = (ast.FunctionDef, ast.Lambda)
  spans = [
    (min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]), node.end_lineno)
    for node in ast.walk(ast.parse(text))
    if isinstance(node, kinds)
  ]
  return max((low for low, high in spans if low <= line <= (high or low)), default=None)


def _leave_out(folder: str, names: Sequence[str]) -> set[str]:
  """Returns what a copy of the project goes without: what commands write, and hidden files."""
  # Not deeper: packages have these names too.
  written = {"runs", "data", "data_dir"} if Path(folder) == ROOT else set()
  return {name for name in names if name[0] == "." or name == "__pycache__" or name in written}


class Copy:
  """A copy of the project in which mutants are tried; the project itself stays as it is."""

  def __init__(self, folder: Path) -> None:
    self._root, self._calls = folder / "project", folder / "calls.json"
    shutil.copytree(ROOT, self._root, ignore=_leave_out)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
      (folder / "shared").symlink_to(shared)

  def calls(self, module: str) -> dict[str, list[int]]:
    """Runs a module's tests without a fault; returns where the functions that each calls begin."""
    plugin = _Calls(self._root / PACKAGE / module, self._calls)
    if not self.passes([f"tests/{test}" for test in TESTS[module]], 3600, plugin):
      raise SystemExit(f"{module}: its tests fail without a fault")
    told: dict[str, list[int]] = json.loads(self._calls.read_text())
    return told

  def passes(self, tests: Sequence[str], limit_s: float, *plugins: Any) -> bool:
    """Says whether tests pass in a process of their own, within so many seconds."""
    child = os.fork()
    if not child:
      code = 3
      with contextlib.suppress(BaseException):
        code = self._run(tests, plugins)
      os._exit(code)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
      done, status = os.waitpid(child, os.WNOHANG)
      if done:
        return status == 0
      time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False

  def _run(self, tests: Sequence[str], plugins: Sequence[Any]) -> int:
    os.setsid()
    os.chdir(self._root)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
      os.dup2(nowhere, stream)
    for name in list(sys.modules):
      if name.partition(".")[0] in (PACKAGE, "tests", "benchmarks", "experiments"):
        del sys.modules[name]
    sys.path[0] = str(self._root)
    sys.dont_write_bytecode = True
    # As a worker of pytest-xdist it shares its compilations with the processes before it.
    os.environ["PYTEST_XDIST_WORKER"] = "mutant"
    plain = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={self._root}")
    base = f"--basetemp={self._root.parent / 'pytest'}"
    return int(pytest.main([*plain, base, *tests], plugins))

  @contextlib.contextmanager
  def hold_mutant(self, module: str, text: str) -> Iterator[None]:
    """Puts a mutant in a module's place."""
    path = self._root / PACKAGE / module
    kept = path.read_text()
    path.write_text(text)
    try:
      yield
    finally:
      path.write_text(kept)


def try_module(
  copy: Copy,
  module: str,
  text: str,
  mutants: Sequence[Mutant],
  equivalent: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
  """Tries mutants of a module; returns their numbers, and the survivors."""
  begun = time.monotonic()
  calls = copy.calls(module)
  limit_s = 30 + 3 * (time.monotonic() - begun)
  print(f"{module}: {len(calls)} tests, at most {limit_s:.0f} s", file=sys.stderr, flush=True)
  counts: collections.Counter[str] = collections.Counter()
  survivors = []
  for mutant in mutants:
    if (mutant.before, mutant.after) in equivalent:
      counts["equivalent"] += 1
      continue
    first = _first_line_around(text, mutant.line)
    near = [test for test, called in calls.items() if first in called]
    with copy.hold_mutant(module, mutant.text):
      passed = not near or copy.passes(near, limit_s)
      passed = passed and (len(near) == len(calls) or copy.passes(list(calls), limit_s))
    counts["survived" if passed else "killed"] += 1
    if passed:
      place = {"line": mutant.line, "before": mutant.before, "after": mutant.after}
      survivors.append(place)
      print(f"{module} survived {json.dumps(place)}", file=sys.stderr, flush=True)
  seconds = round(time.monotonic() - begun)
  return {**{name: counts[name] for name in _ENDS}, "seconds": seconds, "survivors": survivors}


def score(killed: int, survived: int) -> float | None:
  """Returns the share of the mutants, equivalent ones left out, that tests kill."""
  return round(killed / (killed + survived), 3) if killed + survived else None


def read_equivalents() -> dict[str, dict[tuple[str, str], str]]:
  """Reads which mutants are equivalent: by module, the line before and after, and why."""
  told = json.loads(EQUIVALENTS.read_text())
  return {
    module: {(entry["before"], entry["after"]): entry["why"] for entry in entries}
    for module, entries in told.items()
  }


def measure(
  modules: Sequence[str], sample: int, seed: int, again: Mapping[str, Any]
) -> dict[str, Any]:
  """Tries mutants of some modules; of those in an earlier result, its survivors alone."""
  for library in _LIBRARIES:
    importlib.import_module(library)
  equivalents, results = read_equivalents(), dict(again)
  with tempfile.TemporaryDirectory() as folder:
    copy = Copy(Path(folder))
    for module in modules:
      text = (ROOT / PACKAGE / module).read_text()
      faults, earlier = find_faults(text), again.get(module)
      if earlier:
        mutants = _find_again([write_mutant(text, *fault) for fault in faults], earlier)
      else:
        drawn = random.Random(seed).sample(faults, min(sample, len(faults)))
        mutants = [write_mutant(text, *fault) for fault in drawn]
      result = try_module(copy, module, text, mutants, equivalents.get(module, {}))
      if earlier:
        for name in ("killed", "equivalent", "seconds"):
          result[name] += earlier[name]
      told = {"possible": len(faults), "tried": sum(result[name] for name in _ENDS)}
      result = {"score": score(result["killed"], result["survived"]), **told, **result}
      print(f"{module} {json.dumps(result | {'survivors': ''})}", file=sys.stderr, flush=True)
      results[module] = result
  return results


def _find_again(mutants: Sequence[Mutant], earlier: Mapping[str, Any]) -> list[Mutant]:
  """Finds the survivors of an earlier result where their lines are now, if they still are."""
  by_lines = {(mutant.before, mutant.after): mutant for mutant in mutants}
  changes = [(place["before"], place["after"]) for place in earlier["survivors"]]
  return [by_lines[change] for change in changes if change in by_lines]


def main() -> None:
  """Measures what the command line asks for."""
  # Not absl's flags: those of the tests' commands join them in every process.
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--output", help="JSON file to write")
  parser.add_argument("--only", nargs="*", default=list(TESTS), choices=list(TESTS), metavar="FILE")
  parser.add_argument("--sample", type=int, default=60, help="mutants a module, at most")
  parser.add_argument("--seed", type=int, default=0, help="of the draw")
  parser.add_argument("--again", type=Path, help="earlier result, whose survivors are tried again")
  arguments = parser.parse_args()
  told = machine()
  again = json.loads(arguments.again.read_text())["modules"] if arguments.again else {}
  modules = measure(arguments.only, arguments.sample, arguments.seed, again)
  sums = {name: sum(module[name] for module in modules.values()) for name in _ENDS}
  git = ("git", "-C", str(ROOT), "describe", "--always", "--dirty")
  commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
  version = importlib.metadata.version("cosmic-ray")
  result = {
    "machine": told,
    "date": datetime.date.today().isoformat(),
    "commit": commit,
    "tool": f"cosmic-ray {version}",
    "seed": arguments.seed,
    "score": score(sums["killed"], sums["survived"]),
    "tried": sum(sums.values()),
    **sums,
    "modules": modules,
  }
  keep(result, arguments.output)


if __name__ == "__main__":
  main()
