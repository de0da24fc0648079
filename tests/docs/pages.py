"""Finds what a documentation page refers to: links, headings, files, modules, config keys."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

FOLDERS = ("attn_unet_jax", "tfds_pancreas", "experiments", "benchmarks", "tests", "docs")

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
# Not within a longer path, such as ~/.cache/attn_unet_jax.
_FILE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
# The first line of a block of code that a page tells its reader to write into a new file.
_NEW_FILE = re.compile(r"^```python\n# (\S+\.py)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n.*?^```", re.MULTILINE | re.DOTALL)
_NEW_KEY = re.compile(r'^  "?(\w+)"?: |key="(\w+)"', re.MULTILINE)
_MODULE = re.compile(r"python -m ((?:attn_unet_jax|tfds_pancreas|benchmarks)[\w.]*)")
_COMMAND = re.compile(r"(?:python -m (?=[a-z_]+\.)|attn-unet-jax )([a-z_.]+)([^`\n]*)")
_FLAG = re.compile(r"(?<=\s)--([\w.]+)")
_PLACEHOLDER = re.compile(r"/[A-Z]+(?![a-z])")
_KEY = re.compile(r"--config\.([a-z_]+\.[a-z_]+|[a-z_]+(?==))")
_EXPERIMENT = re.compile(r"experiments/([a-z0-9_]+)\.py(?::([a-z_]+))?")


def pages() -> list[Path]:
  """Returns every page for readers: those of docs/ and of the root, and the notebooks."""
  notebooks = (ROOT / "notebooks").glob("*.ipynb")
  return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *notebooks])


def broken_links(page: Path) -> Iterator[str]:
  """Yields the relative links of a page whose file or heading does not exist."""
  for target in _LINK.findall(_FENCE.sub("", page.read_text())):
    if re.match(r"[a-z]+:", target):
      continue
    name, _, heading = target.partition("#")
    path = page.parent / name if name else page
    if not path.exists() or (heading and heading not in slugs(path.read_text())):
      yield target


def slugs(text: str) -> set[str]:
  """Returns the anchors that a page's headings get on a code host."""
  headings = _HEADING.findall(_FENCE.sub("", text))
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_files(text: str) -> Iterator[str]:
  """Yields the paths of this project that a text names, and that neither exist nor are its own."""
  written = set(_NEW_FILE.findall(text))
  for path in _FILE.findall(text):
    if path not in written and not _PLACEHOLDER.search(path) and not (ROOT / path).exists():
      yield path


def missing_modules(text: str) -> Iterator[str]:
  """Yields the modules that a text starts with `python -m` and that do not exist."""
  for module in _MODULE.findall(text):
    path = ROOT.joinpath(*module.split("."))
    exists = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    if not exists and not module.rpartition(".")[2].isupper():  # VERB is a placeholder
      yield module


def command_flags(text: str) -> set[tuple[str, str]]:
  """Returns each command that a text gives, a module or a verb, with each flag of the command.

  Keys of the config are left out: they are flags of every command that has `--config`.
  """
  joined = text.replace("\\\n", " ")
  return {
    (command, flag)
    for command, rest in _COMMAND.findall(joined)
    for flag in _FLAG.findall(rest)
    if not flag.startswith("config.")
  }


def documented_flags(reference: str) -> dict[str, set[str]]:
  """Returns the flags by verb and by module, as the page docs/reference/commands.md lists them."""
  found = {}
  for section in reference.split("\n## ")[1:]:
    flags = set(re.findall(r"^  --([\w.]+):", section, re.MULTILINE))
    module = re.search(r"`python -m ([\w.]+)`", section)
    found[section.partition("\n")[0]] = flags
    if module:
      found[module[1]] = flags
  return found


def keys(text: str) -> set[str]:
  """Returns the config keys that a text gives as flags, such as `data.folder`.

  A key that the text's own Python adds, as an option or a line of a registry, is left out.
  """
  code = "\n".join(_PYTHON.findall(text))
  added = {name for names in _NEW_KEY.findall(code) for name in names if name}
  given = set(_KEY.findall(text)) - {"section.key"}  # a placeholder
  return {key for key in given if key.rpartition(".")[2] not in added}


def experiments(text: str) -> set[tuple[str, str]]:
  """Returns the experiments that a text names, with their variants."""
  return set(_EXPERIMENT.findall(text))
