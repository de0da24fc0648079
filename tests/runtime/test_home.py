"""Where `~` in a path leads, whoever writes it."""

from pathlib import Path

import pytest

from attn_unet_jax.config.draft import default
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import list_keys
from attn_unet_jax.runtime import home
from attn_unet_jax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
  ("given", "meant"),
  [
    ("--data_dir=~/data", "--data_dir=/home/me/data"),
    ("-workdir=~", "-workdir=/home/me"),
    ("--config.data.folder=~/a=b", "--config.data.folder=/home/me/a=b"),
    ("--workdirs=~/a,b,~/c", "--workdirs=/home/me/a,b,/home/me/c"),
    ("--config=~/mine.py:variant", "--config=/home/me/mine.py:variant"),
    ("~/data", "/home/me/data"),
    ("--data_dir=data/~/x", "--data_dir=data/~/x"),
    ("--title=~5 cases", "--title=~5 cases"),
    ("--data_dir=~nobody.of.this.name/x", "--data_dir=~nobody.of.this.name/x"),
    ("--input=./~", "--input=./~"),
    ("--config.train.epochs=3", "--config.train.epochs=3"),
    ("--flag", "--flag"),
  ],
)
def test_a_flag_means_the_home_as_in_a_shell(given, meant):
  assert home.expand_argument(given) == meant


def test_without_a_home_no_folder_of_that_name_is_made(monkeypatch):
  monkeypatch.setattr("os.path.expanduser", lambda text: text)
  for path in ("~", "~/data"):
    with pytest.raises(UserError, match=rf"^{path}: no home folder is known; write the whole path"):
      home.expand_home(path)


def test_every_path_of_a_config_means_the_home():
  """As an experiment file may write it; every key whose meaning is a path says so."""
  paths = [key for key in list_keys() if key.field.metadata["is_path"]]
  named = [
    key.name
    for key in list_keys()
    if isinstance(key.default, str)
    and any(word in key.field.metadata["doc"] for word in ("older", "file", "run to start from"))
  ]
  assert sorted(key.name for key in paths) == sorted(named)
  assert len(paths) == 8
  # A second data set has no boxes: the two do not go together.
  second = [key for key in paths if key.name.startswith("data.also")]
  for together in (second, [key for key in paths if key not in second]):
    draft = default()
    for key in together:
      section, _, name = key.name.rpartition(".")
      draft[section][name] = f"~/{name}"
    config = resolve_draft(draft, data=False)
    for key in together:
      section, _, name = key.name.rpartition(".")
      assert getattr(getattr(config, section), name) == str(Path("/home/me", name))
