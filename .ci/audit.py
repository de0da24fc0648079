"""Looks up the known vulnerabilities of what a lock installs.

.venv-lock/bin/python .ci/audit.py requirements-dev.lock

The status is 1 where one is known, or where the lock cannot be read. Without the network, or where
an index does not answer for a package, it says that nothing was looked up: tests/test_lock.py
checks of the lock itself what can be checked without.
"""

import json
import subprocess
import sys

# What pip-audit says, or what it was told, where no index answers.
UNREACHED = ("Connection", "Timeout", "timed out", "resolve", "ServiceError")


def main() -> int:
  """Runs pip-audit and says what it found, and of how many packages."""
  # The versions stand in the lock: nothing is resolved, and nothing installed.
  options = ["--require-hashes", "--disable-pip", "--format=json", "--progress-spinner=off"]
  command = [sys.executable, "-m", "pip_audit", "--requirement", sys.argv[1], *options]
  done = subprocess.run(command, capture_output=True, text=True)
  try:
    packages = json.loads(done.stdout)["dependencies"]
  except json.JSONDecodeError:
    reason = (done.stderr.strip() or "no answer").splitlines()[-1]
    print(f"{sys.argv[1]}: vulnerabilities not looked up: {reason}")
    return 0 if any(word in done.stderr for word in UNREACHED) else 1
  asked = [one for one in packages if "vulns" in one]
  found = [one for one in asked if one["vulns"]]
  print(f"{sys.argv[1]}: {len(asked)} of {len(packages)} packages looked up", end="; ")
  print(f"{len(found)} with known vulnerabilities")
  for one in found:
    names = ", ".join(known["id"] for known in one["vulns"])
    fixed = sorted({version for known in one["vulns"] for version in known["fix_versions"]})
    print(f"  {one['name']} {one['version']}: {names}; mended in {', '.join(fixed) or 'none'}")
  return 1 if found else 0


if __name__ == "__main__":
  sys.exit(main())
