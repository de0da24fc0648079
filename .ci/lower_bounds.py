"""Prints constraints for pip: every dependency at exactly its lower bound.

python .ci/lower_bounds.py > constraints.txt
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)")


def lower_bounds() -> list[str]:
  """Returns `name==version` for each lower bound of requirements.txt and of the extras."""
  extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  lines += [line for extra in extras.values() for line in extra]
  return sorted({f"{found[1]}=={found[2]}" for line in lines if (found := BOUND.match(line))})


if __name__ == "__main__":
  print("\n".join(lower_bounds()))
