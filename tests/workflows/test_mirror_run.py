"""A run whose predictions are averaged over mirror images, and where that is wrong."""

import dataclasses
from types import SimpleNamespace

import pytest

from attn_unet_jax.inference.mirrors import MirroredSystem
from attn_unet_jax.inference.scales import ScaledSystem
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.mirror_run import mirror_run, scale_run
from tests.configs import with_keys

# A patch that is a factor of 0.7 to 1 of its size shows the body up to 1/0.7 times as large.
SHOWN = {"augment.scale": (0.7, 1.0), "augment.scale_axes": (True, True, True)}


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


def test_scales_that_training_did_not_show_are_warned_of(config, capsys):
  run = run_of(config, "kidney_left")
  assert scale_run(run, ()) is run
  assert capsys.readouterr().out == ""
  run = dataclasses.replace(run, config=with_keys(run.config, SHOWN))
  found = scale_run(run, (0.8, 1.1))
  assert isinstance(found.system, ScaledSystem)
  assert found.scales == (0.8, 1.1)
  said = capsys.readouterr().out
  assert "--tta_scales=0.8,1.1: 3 predictions of each image" in said
  assert (
    "not trained on scans scaled by 0.8 (config.augment.scale, along all of scale_axes)" in said
  )


@pytest.mark.parametrize(
  ("keys", "unseen"),
  [
    ({}, "0.8"),
    ({"augment.scale_axes": (True, True, False)}, "0.8, 1.2"),
    ({"augment.spatial_probability": 0.0}, "0.8, 1.2"),
  ],
)
def test_a_patch_that_zooms_in_shows_a_larger_body(keys, unseen, config, capsys):
  run = run_of(config, "pancreas")
  run = dataclasses.replace(run, config=with_keys(run.config, SHOWN | keys))
  scale_run(run, (0.8, 1.2))
  assert f"not trained on scans scaled by {unseen} (config.augment" in capsys.readouterr().out
  if not keys:
    scale_run(run, (1.2,))
    assert "warning" not in capsys.readouterr().out


def test_each_member_of_an_ensemble_is_asked_what_it_was_shown(config, capsys):
  shown, not_shown = (
    with_keys(config, {"augment.flip": flip}) for flip in ((0.5,) * 3, (0.0,) * 3)
  )
  run = dataclasses.replace(run_of(config, "pancreas", flip=(0.5,) * 3), members=(shown, not_shown))
  mirror_run(run, (1,))
  assert "not trained on scans mirrored along y" in capsys.readouterr().out
