"""What the measure of words counts in made modules."""

import ast

import pytest

from benchmarks import words

_SOURCE = '''"""A module.

Its docstring is no code.
"""

import os  # noqa: F401


class Patch:
  """A patch that is cut."""

  def __init__(self):
    # The reason of the next line.
    self.size = 1  # and another

  @property
  def shape(self):
    """The shape of the patch."""
    return [
      1,  # voxel

      2,
    ]


def _kept(items):
  """What is kept."""
  return items


def keep_items(items):
  """Keeps the items."""
  return items
'''


def test_a_module():
  counts = words.measure_source(_SOURCE, "a.py")
  assert (counts.names, counts.functions, counts.docstrings) == (4, 3, 4)
  assert [one.rpartition(" ")[2] for one in counts.single_words] == ["Patch", "_kept", "shape"]
  assert counts.participles == ["a.py:26: _kept"]
  assert counts.fragments == ["a.py:26: _kept: What is kept."]
  # import, class, def, self.size, @property, def, five of the list, and twice def and return
  assert (counts.code_lines, counts.comment_lines) == (14, 3)


@pytest.mark.parametrize(
  ("name", "split"),
  [("_box_of", ["box", "of"]), ("PatchSource", ["patch", "source"]), ("to_hu", ["to", "hu"]),
   ("CTScan", ["ct", "scan"]), ("unet3d", ["unet3d"]), ("_fail", ["fail"])],
)  # fmt: skip
def test_words_of_a_name(name, split):
  assert words.split_words(name) == split


@pytest.mark.parametrize(
  ("name", "is_participle"),
  [("needed", True), ("_given_back", True), ("checked_affine", True), ("largest_opened", True),
   ("of_kept", True), ("feed", False), ("is_matched", False), ("remove_unfinished", False),
   ("pass_fed", False), ("read_label", False), ("balanced_bce", False)],
)  # fmt: skip
def test_past_participles(name, is_participle):
  assert words.is_participle_name(name) is is_participle


@pytest.mark.parametrize(
  ("line", "function", "class_"),
  [("Returns the box.", True, True), ("Labels every voxel.", True, True),
   ("Checks that all is there.", True, True), ("Labels that are kept.", False, False),
   ("Labels of the case.", False, False), ("Voxels in the box.", False, False),
   ("The box.", False, True), ("A box that holds all.", False, True),
   ("Whether it is one.", False, False), ("`x` counts.", False, False), ("", False, False)],
)  # fmt: skip
def test_openings(line, function, class_):
  assert words.opens_well(line, is_object=False) is function
  assert words.opens_well(line, is_object=True) is class_


def test_packages_and_their_sum(tmp_path):
  package = tmp_path / "package"
  (package / "inner" / "deep").mkdir(parents=True)
  (package / "loose.py").write_text("def one(): pass\n")
  (package / "inner" / "a.py").write_text("def keep_two(): pass  # why\n")
  (package / "inner" / "deep" / "b.py").write_text("def kept(): pass\n")
  packages = words.measure_paths([package])
  assert list(packages) == ["package/inner", "package", "total"]
  assert packages["package/inner"].percentages() == {
    "single_word_names": 50.0,
    "participle_functions": 50.0,
    "fragment_docstrings": 0.0,
    "comment_lines": 50.0,
  }
  assert packages["total"].names == 3
  assert len(list(words.list_judgements(packages["total"]))) == 3
  table = list(words.format_table(packages))
  assert table[-1].split() == ["total", "66.7", "33.3", "0.0", "33.3"]


def test_multi_line_strings_are_code_and_docstrings_are_not():
  source = 'TEXT = """\none\n# two\n"""\n\n\ndef act():\n  """Acts.\n\n  Long.\n  """\n'
  assert words.count_lines(source, ast.parse(source)) == (5, 0)
