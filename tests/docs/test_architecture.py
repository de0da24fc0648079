"""The picture of the floors shows the packages as they import each other."""

import re

from tests.conftest import ROOT
from tests.test_structure import HEIGHT, TOP, _arrows

_NAME = re.compile(r'<text x="[\d.]+" y="([\d.]+)" font-size="15" font-weight="bold"[^>]*>([^<]+)<')


def heights() -> dict[str, float]:
  """Returns how high each package stands in the picture; y grows downwards there."""
  svg = (ROOT / "docs/images/floors.svg").read_text()
  return {name: -float(y) for y, names in _NAME.findall(svg) for name in names.split(" · ")}


def test_every_package_is_in_the_picture():
  assert heights().keys() - {"experiments"} == HEIGHT.keys() - {"__main__"}


def test_every_import_runs_down_in_the_picture():
  shown = heights()
  arrows = [(a, b) for a, b in _arrows(ROOT) if not {a, b} & {*TOP, "__main__"}]
  assert len(arrows) > 50
  assert [(a, b) for a, b in arrows if shown[a] <= shown[b] + 20] == []


def test_the_page_has_a_row_for_every_package():
  page = (ROOT / "docs/architecture.md").read_text()
  table = page.partition("## The floors")[2].partition("Beside the packages")[0]
  assert [name for name in HEIGHT if name != "__main__" and f"`{name}" not in table] == []
