"""Sections of a page."""

from benchmarks.page import table, write_section


def test_a_section_is_added_once_and_replaced_in_its_place(tmp_path):
  page = tmp_path / "docs" / "page.md"
  write_section(page, "first", "one\n")
  write_section(page, "second", "two")
  page.write_text(page.read_text() + "\nBelow.\n")
  write_section(page, "first", r"uno \1")
  assert page.read_text() == (
    "<!-- first -->\nuno \\1\n<!-- /first -->\n\n<!-- second -->\ntwo\n<!-- /second -->\n\nBelow.\n"
  )


def test_a_table():
  assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
