"""The functions for Python."""

import logging

import numpy as np
import pytest

import attn_unet_jax
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import write_nifti
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
