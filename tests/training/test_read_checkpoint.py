"""Checkpoints that a run in training replaces while another process reads them."""

import shutil

import jax
import jax.numpy as jnp
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import checkpoint, integrity
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.read_checkpoint import restore_best, restore_step
from attn_unet_jax.training.state import TrainState


def _state(step):
  params = {"kernel": jnp.full((2, 3), step / 7)}
  return TrainState(jnp.int32(step), params, {}, (jnp.zeros(2), None), {"params": params})


LIKE = jax.eval_shape(lambda: _state(0))


@pytest.fixture
def folder(tmp_path):
  """Checkpoints 1, the best, 2 and 3; the next best one, 4, lies beside the folder."""
  folder = tmp_path / "checkpoints"
  with open_checkpoints(folder, keep=4) as store:
    for step, dsc in ((1, 0.5), (2, 0.3), (3, None), (4, 0.9)):
      store.save(_state(step), dsc)
  shutil.move(folder / "4", tmp_path / "4")
  return folder


def _replace_best(folder):
  """Does what a training does: a new best checkpoint, and the old one is moved away."""
  if (folder / "1").is_dir():
    shutil.move(folder.with_name("4"), folder / "4")
    shutil.move(folder / "1", folder.with_name("1"))


@pytest.mark.parametrize("moment", ["verify_checkpoint", "read_validation_dsc", "_check_fit"])
def test_the_new_best_is_taken_where_the_old_one_goes_meanwhile(
  folder, monkeypatch, capsys, moment
):
  """Before its files are verified, before the scores are read, and before it is read itself."""
  module = checkpoint if moment == "_check_fit" else integrity
  real = getattr(module, moment)

  def first_replace(*arguments):
    if moment == "_check_fit":  # which looks into the folder itself
      found = real(*arguments)
      _replace_best(folder)
      return found
    _replace_best(folder)
    return real(*arguments)

  monkeypatch.setattr(module, moment, first_replace)
  assert int(restore_best(folder, LIKE).step) == 4
  assert "damaged" not in capsys.readouterr().out


def test_a_folder_whose_checkpoints_go_again_and_again_is_refused(folder, monkeypatch):
  def remove(path):
    shutil.rmtree(path)
    raise integrity.DamagedError("seal.json: No such file or directory")

  monkeypatch.setattr(integrity, "verify_checkpoint", remove)
  with pytest.raises(UserError, match=r"removed checkpoints 3 times .* the last was 3; "):
    restore_best(folder, LIKE)


def test_a_step_that_goes_is_not_called_damaged(folder, monkeypatch):
  monkeypatch.setattr(checkpoint, "_check_fit", lambda path, _: shutil.rmtree(path))
  told = r"no checkpoint of step 3 any more, the run has removed it; name another one$"
  with pytest.raises(UserError, match=told):
    restore_step(folder, 3, LIKE)
