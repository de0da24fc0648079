"""The locks: complete, without addresses, within the bounds that are set, and in the bill."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PYTHONS = ("3.11.9", "3.12.4", "3.13.0", "3.14.0")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def read_lock(name: str) -> list[tuple[Requirement, list[str]]]:
  """Returns the requirements of a lock with the hashes of each."""
  text = (ROOT / name).read_text().replace("\\\n", " ")
  entries = []
  for line in text.splitlines():
    pin, *hashes = line.split(" --hash=")
    entries.append((Requirement(pin), hashes))
  return entries


def versions(name: str, python: str) -> dict[str, str]:
  """Returns the version of each distribution that a lock installs on one Python."""
  environment = default_environment() | {
    "python_version": python.rpartition(".")[0],
    "python_full_version": python,
  }
  found = {}
  for pin, _ in read_lock(name):
    if not pin.marker or pin.marker.evaluate(environment):
      distribution = canonicalize_name(pin.name)
      assert distribution not in found, f"{distribution} twice on Python {python}"
      (exact,) = pin.specifier
      found[distribution] = exact.version
  return found


def wanted(extra: str | None) -> list[Requirement]:
  """Returns what requirements.txt asks for, and the extra."""
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  found = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
  if extra:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found += map(Requirement, project["optional-dependencies"][extra])
  return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_version_is_exact_and_has_its_hashes(name):
  for pin, hashes in read_lock(name):
    (exact,) = pin.specifier
    assert exact.operator == "=="
    assert hashes
    assert all(HASH.fullmatch(f"--hash={digest.strip()}") for digest in hashes)


@pytest.mark.parametrize("name", [*LOCKS, "sbom.cdx.json"])
def test_no_address_of_an_index_or_a_file_stands_there(name):
  found = re.findall(r"\S*(?:https?:|file:|//|--index|--find-links| @ )\S*", _without_schema(name))
  assert not found


def _without_schema(name: str) -> str:
  return re.sub(r'"\$schema": "[^"]*"', "", (ROOT / name).read_text())


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("name", "extra"), [(LOCKS[0], None), (LOCKS[1], "dev")])
def test_the_lock_answers_what_is_asked_for(name, extra, python):
  locked = versions(name, python)
  for one in wanted(extra):
    assert one.specifier.contains(locked[canonicalize_name(one.name)]), one


@pytest.mark.parametrize("python", PYTHONS)
def test_both_locks_agree(python):
  assert versions(LOCKS[0], python).items() <= versions(LOCKS[1], python).items()


def test_the_bill_of_materials_lists_what_the_lock_installs():
  bill = json.loads((ROOT / "sbom.cdx.json").read_text())
  assert bill["bomFormat"] == "CycloneDX"
  listed = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
  # It is made on the newest Python that was there.
  assert any(listed == versions(LOCKS[0], python) for python in PYTHONS)
  assert {"jax", "flax", "numpy"} <= listed.keys()
  # A few packages declare no licence in their metadata.
  assert sum("licenses" in one for one in bill["components"]) > 0.9 * len(listed)


# Stands in for pip-audit, which needs the network.
STAND_IN = """
import sys
print({output!r})
print({error!r}, file=sys.stderr)
"""
KNOWN = {"id": "V-1", "fix_versions": ["2"]}


def audit(folder: Path, output: str, error: str = "") -> subprocess.CompletedProcess[str]:
  (folder / "pip_audit.py").write_text(STAND_IN.format(output=output, error=error))
  command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "x.lock"]
  return subprocess.run(command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def packages(*dependencies: dict) -> str:
  return json.dumps({"dependencies": dependencies})


def test_an_audit_without_the_network_says_that_nothing_was_looked_up(tmp_path):
  done = audit(tmp_path, "", "ConnectionError: no route")
  assert done.returncode == 0
  assert "not looked up: ConnectionError: no route" in done.stdout


def test_an_audit_that_cannot_read_the_lock_fails(tmp_path):
  done = audit(tmp_path, "", "ERROR: x.lock: invalid requirement")
  assert done.returncode == 1
  assert "not looked up: ERROR: x.lock" in done.stdout


def test_an_audit_counts_what_the_index_did_not_answer_for(tmp_path):
  done = audit(tmp_path, packages({"name": "a", "vulns": []}, {"name": "b", "skip_reason": "x"}))
  assert done.returncode == 0
  assert "1 of 2 packages looked up; 0 with known vulnerabilities" in done.stdout


def test_a_known_vulnerability_ends_an_audit_with_an_error(tmp_path):
  done = audit(tmp_path, packages({"name": "a", "version": "1", "vulns": [KNOWN]}))
  assert done.returncode == 1
  assert "a 1: V-1; mended in 2" in done.stdout
