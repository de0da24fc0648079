"""The workflows run what .ci/run runs, and what CONTRIBUTING.md tells people to run exists."""

import re

from tests.conftest import ROOT

TARGET = re.compile(r"^[^#\n]*?\bmake (?:-C \S+ )?([a-z][a-z-]*)", re.MULTILINE)


def make_targets(*paths: str) -> set[str]:
  """Returns the targets of make that these files name."""
  return {name for path in paths for name in TARGET.findall((ROOT / path).read_text())}


def test_the_workflows_run_every_step_of_ci():
  wanted = make_targets(".ci/run")
  assert {"lint", "test-newest", "test-all-oldest", "test-targets"} <= wanted
  assert "demo" in wanted
  assert wanted <= make_targets(".github/workflows/ci.yml")


def test_targets_that_are_named_exist():
  makefile = (ROOT / "Makefile").read_text()
  known = set(" ".join(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)).split())
  code = set(re.findall(r"`make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
  workflows = make_targets(".github/workflows/ci.yml", ".github/workflows/soak.yml")
  assert code
  assert code | workflows <= known
