"""The functions for Python."""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pytest

import attn_unet_jax
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.workflows.load_run import LoadedRun
from tests.configs import small_config, with_keys
from tests.drawn_ct import AFFINE, drawn_ct


def test_a_scan_is_read_as_predict_reads_it(tmp_path, caplog):
  write_nifti(tmp_path / "a.nii", drawn_ct())
  np.testing.assert_array_equal(attn_unet_jax.read_scan(tmp_path / "a.nii").array, drawn_ct().array)
  assert caplog.text == ""
  path = tmp_path / "b.nii"
  write_nifti(path, Volume(drawn_ct().array + 1024, AFFINE))
  with pytest.raises(UserError, match=r"b\.nii: .*subtract 1024; .*--accept=hounsfield$"):
    attn_unet_jax.read_scan(path)
  with caplog.at_level(logging.WARNING):
    assert attn_unet_jax.read_scan(path, accept="hounsfield").array.max() > 1000
  assert "accepted (hounsfield): " in caplog.text
  with pytest.raises(UserError, match="accept=all: 'all' is none of hounsfield, "):
    attn_unet_jax.read_scan(path, accept="all")


def test_a_run_inside_boxes_is_refused_and_not_used_on_a_whole_scan():
  def predict(volume):
    return np.zeros((*volume.shape, 2), np.float32)

  scan = Volume(drawn_ct().array, AFFINE)
  config = with_keys(small_config(), {"data.spacing_mm": 8.0})
  run = LoadedRun(config, ("pancreas",), SimpleNamespace(predict=predict), 7)
  assert attn_unet_jax.segment(scan, run).shape == scan.shape
  boxed = dataclasses.replace(run, config=with_keys(config, {"data.boxes": "boxes.json"}))
  with pytest.raises(UserError, match=r"trained inside boxes; .* --boxes=FILE"):
    attn_unet_jax.segment(scan, boxed)
  # Of a run in stages the first one finds the box.
  staged = dataclasses.replace(boxed, locate=lambda _: None)
  assert attn_unet_jax.segment(scan, staged).shape == scan.shape
