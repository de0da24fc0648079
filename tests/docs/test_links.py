"""What the documentation names exists: links, files, modules, config keys, experiments."""

import importlib
from pathlib import Path

import pytest

from attn_unet_jax.config.schema import list_keys
from tests.conftest import ROOT
from tests.docs.pages import (
  FOLDERS,
  broken_links,
  command_flags,
  documented_flags,
  experiments,
  keys,
  missing_files,
  missing_modules,
  pages,
  slugs,
)

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
  assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_that_are_named_exist(page):
  text = page.read_text()
  assert [*missing_files(text), *missing_modules(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_config_keys_that_are_named_exist(page):
  assert keys(page.read_text()) - {key.name for key in list_keys()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_flags_of_commands_are_those_of_the_reference(page):
  known = documented_flags((ROOT / "docs/reference/commands.md").read_text())
  given = command_flags(page.read_text())
  assert {(name, flag) for name, flag in given if flag not in known.get(name, {flag})} == set()


def test_experiments_that_are_named_have_their_variants():
  for name, variant in {found for page in pages() for found in experiments(page.read_text())}:
    importlib.import_module(f"experiments.{name}").get_config(variant)


def test_every_page_is_reached_from_the_index():
  index = (ROOT / "docs/README.md").read_text()
  alone = [page.name for page in (ROOT / "docs").rglob("*.md") if f"{page.name})" not in index]
  assert alone == ["README.md"]


def test_pages_that_the_code_names_exist():
  files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
  for path in [*files, ROOT / "Makefile"]:
    named = [name for name in missing_files(path.read_text()) if name.startswith("docs/")]
    assert named == [], path


def test_a_broken_page_is_found(tmp_path: Path):
  """Each check can fail: a page with one mistake of every kind."""
  (tmp_path / "other.md").write_text("# Here, and there\n```\n# no heading\n```\n")
  page = tmp_path / "page.md"
  page.write_text(
    "[good](other.md#here-and-there) [web](https://example.org) [gone](gone.md)\n"
    "[heading](other.md#no-heading) `attn_unet_jax/no_such_file.py`, attn_unet_jax/main.py.\n"
    "python -m attn_unet_jax.main; python -m attn_unet_jax.no_such_command\n"
    "--config.data.folder=X --config.data.floder=X --config.speed=1 ~/.cache/attn_unet_jax/xla\n"
  )
  text = page.read_text()
  assert list(broken_links(page)) == ["gone.md", "other.md#no-heading"]
  assert slugs((tmp_path / "other.md").read_text()) == {"here-and-there"}
  assert list(missing_files(text)) == ["attn_unet_jax/no_such_file.py"]
  assert list(missing_modules(text)) == ["attn_unet_jax.no_such_command"]
  assert keys(text) == {"data.folder", "data.floder", "speed"}


def test_a_wrong_flag_is_found():
  text = (
    "`attn-unet-jax train --config=a --workdir=b` and --other\n"
    "python -m tfds_pancreas.build --dataset=c \\\n  --data_dri=d --config.data.fold=1\n"
  )
  given = {("train", "config"), ("train", "workdir")}
  given |= {("tfds_pancreas.build", "dataset"), ("tfds_pancreas.build", "data_dri")}
  assert command_flags(text) == given
  known = documented_flags((ROOT / "docs/reference/commands.md").read_text())
  assert {"config", "workdir", "coordinator"} <= known["train"] == known["attn_unet_jax.main"]
  assert "data_dir" in known["tfds_pancreas.build"]
  assert "data_dri" not in known["tfds_pancreas.build"]


def test_what_a_page_adds_itself_is_not_missing():
  text = (
    "```python\n# attn_unet_jax/losses/new.py\nx = 1\n```\n"
    '```python\n# LOSSES\n  "new": 1,\n  width: int = option(1, key="new_width")\n```\n'
    "attn_unet_jax/losses/new.py, attn_unet_jax/losses/other.py\n"
    "--config.loss.new=1 --config.loss_options.new_width=2 --config.loss.other=3\n"
  )
  assert list(missing_files(text)) == ["attn_unet_jax/losses/other.py"]
  assert keys(text) == {"loss.other"}
