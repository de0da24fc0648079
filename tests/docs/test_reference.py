"""The generated pages say what the program says."""

import importlib.util

import pytest

from attn_unet_jax.config.reference import render_page
from attn_unet_jax.config.schema import list_keys
from tests.conftest import ROOT

_SPEC = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate_reference.py")
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)


def test_the_page_of_keys_is_that_of_the_program():
  page = (ROOT / "docs/reference/config.md").read_text()
  assert page == render_page(), "run make docs"
  for key in list_keys():
    assert f"| `{key.name}` |" in page


@pytest.mark.slow
def test_the_page_of_commands_is_that_of_the_program(monkeypatch):
  monkeypatch.chdir(ROOT)
  page = (ROOT / "docs/reference/commands.md").read_text()
  assert page == generate.render_commands(), "run make docs"
  for verb in generate.COMMANDS:
    assert f"## {verb}\n" in page
