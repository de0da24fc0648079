"""What `config.init.workdir` names: runs, their checkpoints, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.read_checkpoint import restore_step
from attn_unet_jax.workflows import starting_run
from tests.configs import small_config, with_keys


@pytest.fixture
def asked(monkeypatch):
  """Which checkpoints are loaded; the best one is that of step 7."""
  loaded = []

  def load(workdir, step=None):
    loaded.append((workdir, step))
    return SimpleNamespace(classes=("liver",), variables={}, step=step or 7)

  monkeypatch.setattr(starting_run, "load_best", load)
  monkeypatch.setattr(starting_run, "check_starting_run", lambda *given: given[3])
  return loaded


def _open(text):
  return starting_run.open_starting_run(with_keys(small_config(), {"init.workdir": text}), None)


def test_each_name_is_a_run_or_one_of_its_checkpoints(asked, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  found = _open("a,a@20, ~/b@3,c@d")
  assert asked == [(Path("a"), None), (Path("a"), 20), (tmp_path / "b", 3), (Path("c@d"), None)]
  assert [one.step for one in found] == [7, 20, 3, 7]


def test_a_folder_that_is_called_so_is_that_run(asked, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path("a@20").mkdir()
  Path("b,c").mkdir()
  _open("a@20")
  _open("b,c")
  assert asked == [(Path("a@20"), None), (Path("b,c"), None)]


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("a,a@7", r"--config\.init\.workdir=a,a@7: step 7 of a is there twice"),
    ("a,,b", r"--config\.init\.workdir=a,,b: an empty name"),
    ("builtin:nobody@3", "builtin:nobody: no such network"),
  ],
)
def test_what_names_no_mean(asked, text, words):
  with pytest.raises(UserError, match=words) as error:
    _open(text)
  assert "\n" not in str(error.value)


def test_a_step_that_was_not_saved_is_named_with_those_that_were(tmp_path):
  with pytest.raises(UserError, match=r"no checkpoint of step 5; there is none yet"):
    restore_step(tmp_path, 5, None)
  for step in ("20", "100"):
    (tmp_path / step).mkdir()
  with pytest.raises(UserError, match=r"no checkpoint of step 5; there are those of 20, 100"):
    restore_step(tmp_path, 5, None)


def test_a_release_has_one_checkpoint():
  with pytest.raises(
    UserError, match=r"a release; its only checkpoint is of step \d+, and none of"
  ):
    _open("builtin:pancreas@999999")
