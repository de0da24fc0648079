"""Sections of a page that benchmarks write, each its own, whatever stands around it."""

import re
from pathlib import Path

from attn_unet_jax.runtime.files import write_text


def write_section(page: Path, name: str, text: str) -> None:
  """Replaces what stands between `<!-- name -->` and `<!-- /name -->`, or adds it at the end."""
  begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
  section = f"{begin}{text.strip()}\n{end}"
  content = page.read_text() if page.exists() else ""
  there = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
  if there.search(content):
    content = there.sub(lambda _: section, content)
  else:
    content = f"{content.rstrip()}\n\n{section}".lstrip()
  page.parent.mkdir(parents=True, exist_ok=True)
  write_text(page, content)


def table(head: list[str], rows: list[list[str]]) -> str:
  """A table in Markdown."""
  lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
  return "\n".join([lines[0], f"|{' --- |' * len(head)}", *lines[1:]])


def spread(values: tuple[float, float, int], digits: int = 3, cases: int = 0) -> str:
  """Mean ± sd, and n in brackets where it is fewer than the cases."""
  mean, sd, n = values
  if not n:
    return "-"
  return f"{mean:.{digits}f} ± {sd:.{digits}f}" + (f" ({n})" if n < cases else "")
