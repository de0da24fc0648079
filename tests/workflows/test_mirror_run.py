"""A run whose predictions are averaged over mirror images, and where that is wrong."""

from types import SimpleNamespace

import pytest

from attn_unet_jax.inference.mirrors import MirroredSystem
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.mirror_run import mirror_run
from tests.configs import with_keys


def run_of(config, *classes, flip=(0.0, 0.0, 0.0)):
  config = with_keys(config, {"augment.flip": flip})
  return LoadedRun(config, classes, SimpleNamespace(predict=None), 1)


def test_without_axes_the_run_is_as_it_is(config, capsys):
  trained = run_of(config, "kidney_left")
  assert mirror_run(trained, ()) is trained
  assert capsys.readouterr().out == ""


def test_left_and_right_are_not_exchanged(config):
  with pytest.raises(
    UserError, match=r"--tta=xy: x mirrors left and right, .*kidney_left.*leave x"
  ):
    mirror_run(run_of(config, "liver", "kidney_left"), (0, 1))
  assert mirror_run(run_of(config, "kidney_left"), (1, 2)).mirrors == (1, 2)


def test_mirrors_that_training_did_not_show_are_warned_of(config, capsys):
  found = mirror_run(run_of(config, "pancreas", flip=(0.5, 0.0, 0.0)), (0, 2))
  assert isinstance(found.system, MirroredSystem)
  said = capsys.readouterr().out
  assert "--tta=xz: 4 predictions a scan" in said
  assert "not trained on scans mirrored along z (config.augment.flip)" in said
  mirror_run(run_of(config, "pancreas", flip=(0.5, 0.0, 0.0)), (0,))
  assert "warning" not in capsys.readouterr().out
