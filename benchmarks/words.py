"""Measures the language of the code: its names, how its docstrings open, and its comments.

  python -m benchmarks.words --list

It prints four figures in % for every package, and for all of them together:

* single: functions and classes whose name is a single word. Underscores in front do not count;
  `box_of` and `PatchSource` are two words. Names like `__init__`, which Python chose, are left out.
* partic.: functions that are named by a past participle. The first word is one (`checked_affine`),
  or the last word is one and the first is no verb (`largest_opened`).
* fragment: docstrings of functions and classes whose first line opens neither with a verb in the
  third person nor, for a class or a property, with what the object is (`A patch that ...`).
* comment: lines with a comment, relative to the lines with code. Docstrings are not code, and a
  directive to a tool (`noqa`, `type: ignore`, `fmt`) is not a comment.

`--list` also prints every name and docstring that counts against the code, so that a wrong
judgement shows.
"""

import argparse
import ast
import dataclasses
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from benchmarks.result import keep

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# A word that is not here is no verb to the measure: a plural noun ends in s as well.
_VERB_TEXT = """
  accepts accumulates adds adjusts advances aggregates agrees aligns allocates allows appends
  applies asks assembles asserts assigns attaches averages balances begins binds blends blurs
  breaks brings broadcasts builds caches calls cancels casts catches centres changes checks
  chooses claims clamps clears clips closes collects combines commits compares compiles
  completes composes computes concatenates configures confirms connects consists contains
  continues converts convolves copies corrects counts covers creates crops cuts decides
  declares decodes decorates deduplicates defers defines delays deletes derives describes
  detects determines digests dilates disables discards divides downloads downsamples draws
  drives drops emits enables encloses encodes ends enlarges enqueues ensures erodes
  establishes estimates evaluates exchanges excludes executes exits expands explains exports
  extends extracts feeds fetches fills filters finds finishes fits flattens flips follows
  forces formats freezes gathers generates gets gives grows guarantees guards guesses handles
  has hashes helps hides holds identifies ignores implements imports includes indexes infers
  initialises inserts inspects installs interpolates interrupts inverts iterates joins keeps
  labels launches leaves limits lists loads locates locks logs looks lowers makes maps marks
  masks matches measures merges migrates mirrors mixes moves multiplies names normalises notes
  notifies numbers omits opens orders orients overlays packs pads paints parses partitions
  passes pastes pauses permutes picks pins places plans plots pools positions postpones
  predicts prefers prefetches prepares prevents prints processes produces projects prompts
  propagates provides pulls pushes puts quantises queues raises ranks reads rearranges
  rebuilds receives recognises recomputes reconstructs records recovers reduces refers refits
  refuses registers reinstates rejects releases reloads remembers removes renames renders
  reopens reorders repacks repeats replaces replicates replies reports represents requests
  requires resamples rescales reserves resets reshapes resizes resolves restarts restores
  restricts resumes retries returns reuses reverses rewrites rolls rotates rounds runs samples
  saves says scales scans scatters schedules scores seals searches seeds sees segments selects
  sends separates serialises sets shards shares shifts shortens shows shuffles shuts silences
  simulates skips slides smooths sorts splits spreads stacks standardises starts states
  stitches stops stores streams strips subtracts suggests summarises sums supplies suppresses
  surrounds surveys swaps switches synchronises takes tells terminates tests throws tiles
  times totals traces tracks trains transfers transforms translates transposes traverses
  treats tries trims truncates turns undoes unpacks updates upsamples uses validates verifies
  views visits visualises waits walks warns warps watches weighs weights widens wraps writes
  yields zeroes zooms
"""
# Their past participles do not end in -ed.
_IRREGULAR_TEXT = """
  begun born bound broken brought built caught chosen dealt done drawn fed felt fought found
  frozen given gone grown held hidden kept known laid led left lent lost made meant met paid
  proven rung said seen sent shown shrunk sold sought spent spoken spun stood struck stuck
  sworn taken taught thought thrown told torn understood undone woken won worn woven written
"""
_NO_PARTICIPLES = frozenset(
  ("bed", "bleed", "embed", "exceed", "feed", "need", "proceed", "red", "seed", "shed", "speed")
)
# The field's own terms, whose participle is an adjective: a name of the operation, not of a result.
_TERMS = (
  *("balanced_bce", "fixed_loss", "generalised_dice", "packed_conv3d", "paired_tests"),
  *("squared_dice", "weighted_ce"),
)
# Before one of these a word such as `labels` or `counts` is a plural noun: "Labels of the case".
_AFTER_NOUNS = ("of", "that", "which", "whose", "per", "and")
# These are followed by a clause: "Checks that the files are there".
_BEFORE_THAT = ("asserts", "checks", "ensures", "guarantees", "says", "tells", "verifies")
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|fmt:|pragma|mypy:|ruff:|!)")
_NO_CODE = (
  *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT),
  *(tokenize.ENCODING, tokenize.ENDMARKER),
)
_VERBS, _IRREGULAR = frozenset(_VERB_TEXT.split()), frozenset(_IRREGULAR_TEXT.split())


@dataclasses.dataclass
class WordCounts:
  """The counts of one package, each with what counts against the code.

  Attributes:
    names: functions and classes; `single_words` are those of one word.
    functions: functions alone; `participles` are those named by a past participle.
    docstrings: of functions and classes; `fragments` are the first lines that open with neither a
      verb nor what the object is.
    code_lines: lines with code; `comment_lines` those with a comment.
  """

  names: int = 0
  functions: int = 0
  docstrings: int = 0
  code_lines: int = 0
  comment_lines: int = 0
  single_words: list[str] = dataclasses.field(default_factory=list)
  participles: list[str] = dataclasses.field(default_factory=list)
  fragments: list[str] = dataclasses.field(default_factory=list)

  def add(self, other: "WordCounts") -> None:
    """Adds the counts of another package to these."""
    for field in dataclasses.fields(self):
      setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

  def percentages(self) -> dict[str, float]:
    """Returns the four figures in %."""
    return {
      "single_word_names": _percent(len(self.single_words), self.names),
      "participle_functions": _percent(len(self.participles), self.functions),
      "fragment_docstrings": _percent(len(self.fragments), self.docstrings),
      "comment_lines": _percent(self.comment_lines, self.code_lines),
    }


def main() -> None:
  """Measures the paths, prints a table and keeps the figures."""
  arguments = _parse_arguments()
  packages = measure_paths([Path(path) for path in arguments.paths.split(",")])
  for line in format_table(packages):
    print(line)
  if arguments.list:
    for judgement in list_judgements(packages["total"]):
      print(judgement)
  if arguments.output:
    figures = {name: counts.percentages() for name, counts in packages.items()}
    keep({"unit": "%", "packages": figures}, arguments.output)


def _parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--paths", default="attn_unet_jax,tfds_pancreas", help="folders or files, with commas between"
  )
  parser.add_argument("--list", action="store_true", help="name what counts against the code")
  parser.add_argument("--output", help="JSON file for the figures")
  return parser.parse_args()


def measure_paths(paths: list[Path]) -> dict[str, WordCounts]:
  """Measures every Python file below the paths.

  Returns:
    counts by package: each path's own modules under its name, each folder in it apart, and the sum
    of all as `total`.
  """
  packages: dict[str, WordCounts] = {}
  total = WordCounts()
  for path in paths:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for file in files:
      inner = file.relative_to(path).parts if path.is_dir() else ()
      name = "/".join([path.name, *inner[:1]]) if len(inner) > 1 else path.name
      counts = measure_source(file.read_text(), str(file))
      packages.setdefault(name, WordCounts()).add(counts)
      total.add(counts)
  return {**packages, "total": total}


def measure_source(source: str, name: str) -> WordCounts:
  """Measures one module, `name` being the file to list in front of each judgement."""
  counts = WordCounts()
  tree = ast.parse(source)
  for node in ast.walk(tree):
    if isinstance(node, Definition):
      _count_definition(counts, node, f"{name}:{node.lineno}")
  counts.code_lines, counts.comment_lines = count_lines(source, tree)
  return counts


def _count_definition(counts: WordCounts, node: Definition, place: str) -> None:
  if document := ast.get_docstring(node):
    counts.docstrings += 1
    line = document.splitlines()[0]
    if not opens_well(line, is_object=_is_object(node)):
      counts.fragments.append(f"{place}: {node.name}: {line}")
  if node.name.startswith("__") and node.name.endswith("__"):
    return  # Python chose the name
  counts.names += 1
  if len(split_words(node.name)) == 1:
    counts.single_words.append(f"{place}: {node.name}")
  if not isinstance(node, ast.ClassDef):
    counts.functions += 1
    if is_participle_name(node.name):
      counts.participles.append(f"{place}: {node.name}")


def split_words(name: str) -> list[str]:
  """Splits a name in snake or camel case into words, in lower case."""
  camel = r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[0-9]+"
  return [word.lower() for part in name.strip("_").split("_") for word in re.findall(camel, part)]


def is_participle_name(name: str) -> bool:
  """Returns whether a function is named by a past participle instead of what it does."""
  words = split_words(name)
  if not words or name.strip("_") in _TERMS:
    return False
  acts = words[0] in ("is", "has") or any(f"{words[0]}{end}" in _VERBS for end in ("s", "es"))
  return _is_participle(words[0]) or (_is_participle(words[-1]) and not acts)


def _is_participle(word: str) -> bool:
  return word in _IRREGULAR or (word.endswith("ed") and word not in _NO_PARTICIPLES)


def opens_well(line: str, *, is_object: bool) -> bool:
  """Returns whether the first line of a docstring opens with a verb, or names its object.

  Args:
    line: the first line.
    is_object: whether what is described is an object, a class or a property.
  """
  first, second, *_ = [*re.findall(r"[A-Za-z]+", line), "", ""]
  is_verb = second not in _AFTER_NOUNS or (second == "that" and first.lower() in _BEFORE_THAT)
  if first.lower() in _VERBS and line.startswith(first) and is_verb:
    return True
  return is_object and re.match(r"(A|An|The) \S+", line) is not None


def _is_object(node: Definition) -> bool:
  """Returns whether a definition is a class, or a method that is read like an attribute."""
  marks = [mark.attr if isinstance(mark, ast.Attribute) else getattr(mark, "id", "")
           for mark in node.decorator_list]  # fmt: skip
  return isinstance(node, ast.ClassDef) or any(mark.endswith("property") for mark in marks)


def count_lines(source: str, tree: ast.Module) -> tuple[int, int]:
  """Counts the lines that hold code, and those that hold a comment."""
  documents = set(_docstring_lines(tree))
  code: set[int] = set()
  comments: set[int] = set()
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT and not _DIRECTIVE.match(token.string):
      comments.add(token.start[0])
    elif token.type not in _NO_CODE:
      code.update(range(token.start[0], token.end[0] + 1))
  return len(code - documents), len(comments)


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
  for node in ast.walk(tree):
    if isinstance(node, (ast.Module, Definition)) and ast.get_docstring(node):
      document = node.body[0]
      yield from range(document.lineno, (document.end_lineno or document.lineno) + 1)


def format_table(packages: dict[str, WordCounts]) -> Iterator[str]:
  """Yields the lines of a table with a row for each package."""
  width = max(map(len, packages)) + 2
  yield f"{'':<{width}}{'single':>8}{'partic.':>9}{'fragment':>10}{'comment':>9}   %"
  for name, counts in packages.items():
    one, participle, fragment, comment = counts.percentages().values()
    yield f"{name:<{width}}{one:>8.1f}{participle:>9.1f}{fragment:>10.1f}{comment:>9.1f}"


def list_judgements(counts: WordCounts) -> Iterator[str]:
  """Yields a line for every name and docstring that counts against the code."""
  for kind in ("single_words", "participles", "fragments"):
    yield from (f"{kind}: {judgement}" for judgement in getattr(counts, kind))


def _percent(part: int, whole: int) -> float:
  return round(100 * part / whole, 1) if whole else 0.0


if __name__ == "__main__":
  main()
