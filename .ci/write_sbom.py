"""Writes the bill of materials: what requirements.lock installs, with licences and dependencies.

.venv-lock/bin/python .ci/write_sbom.py ENVIRONMENT OUTPUT

ENVIRONMENT is installed from the lock. What it holds beside the lock is left out, and so are all
addresses: names and versions say which package is meant.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"([\w.-]+)==([\w.]+)")
# They hold addresses, or name the tool instead of the material.
LEFT_OUT = ("externalReferences", "tools", "description")


def read_pins(lock: Path) -> set[tuple[str, str]]:
  """Returns name and version of each line of a lock that has one."""
  return {pin.groups() for line in lock.read_text().splitlines() if (pin := PIN.match(line))}  # type: ignore[misc]


def describe_environment(environment: Path) -> dict[str, Any]:
  """Returns the bill of everything in an environment, in CycloneDX."""
  command = ["-m", "cyclonedx_py", "environment", "--output-reproducible", "--of=JSON"]
  done = subprocess.run(
    [sys.executable, *command, str(environment)], check=True, stdout=subprocess.PIPE
  )
  bill: dict[str, Any] = json.loads(done.stdout)
  return bill


def keep_locked(bill: dict[str, Any], pins: set[tuple[str, str]]) -> dict[str, Any]:
  """Returns the bill of what the lock names, without addresses."""
  components = [
    {key: value for key, value in one.items() if key not in LEFT_OUT}
    for one in bill["components"]
    if (one["name"].lower().replace("_", "-"), one["version"]) in pins
  ]
  kept = {one["bom-ref"] for one in components}
  dependencies = [
    {"ref": one["ref"], "dependsOn": sorted(kept & set(one.get("dependsOn", ())))}
    for one in bill["dependencies"]
    if one["ref"] in kept
  ]
  metadata = {key: value for key, value in bill["metadata"].items() if key not in LEFT_OUT}
  return bill | {"components": components, "dependencies": dependencies, "metadata": metadata}


def main() -> None:
  """Writes the bill that the command line asks for."""
  environment, output = map(Path, sys.argv[1:])
  bill = keep_locked(describe_environment(environment), read_pins(ROOT / "requirements.lock"))
  output.write_text(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
  main()
