"""One answer of a network in every format, through `predict`'s workflow."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from absl import flags

from attn_unet_jax import predict
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.workflows import segment_scans as workflow
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_mask import OUTPUT_FORMATS, read_mask_source
from tests.configs import with_keys
from tests.dicom_sources import (
  SHAPE,
  assert_same_points,
  fill_class,
  find_points,
  read_frame_points,
  write_source,
)


@pytest.fixture
def answer(config, monkeypatch):
  """Segments a scan, of the form `write_source` writes, with a network that finds half of it."""
  config = with_keys(config, {"data.spacing_mm": 1.0})

  def predict_half(volume):
    probabilities = np.zeros((*volume.shape, 2), np.float32)
    probabilities[..., 0] = 1
    probabilities[: volume.shape[0] // 2] = 0, 1
    return probabilities

  trained = LoadedRun(config, ("pancreas",), SimpleNamespace(predict=predict_half), 1)
  monkeypatch.setattr(workflow, "open_ensemble", lambda _: trained)

  def segment(source, output, output_format="nifti", **options):
    options = AnswerOptions(output_format=output_format, **options)
    workflow.segment_scans([Path("run")], source, output, options)

  return segment


def test_every_format_has_the_voxels_of_the_nifti_mask(answer, tmp_path, capsys):
  pytest.importorskip("highdicom")
  source = write_source(tmp_path / "a", "columns negated")
  answer(source, tmp_path / "m.nii.gz")
  answer(source, tmp_path / "seg.dcm", "dicom-seg", as_json=True)
  answer(source, tmp_path / "rt.dcm", "rtstruct")
  nifti = read_label(tmp_path / "m.nii.gz")
  expected = find_points(nifti.array, nifti.affine)
  assert 0 < len(expected) < np.prod(SHAPE)
  assert_same_points(read_frame_points(tmp_path / "seg.dcm", 1), expected)
  contours = pydicom.dcmread(tmp_path / "rt.dcm")
  assert_same_points(fill_class(contours, 1, source, SHAPE), expected)
  assert json.loads((tmp_path / "seg.json").read_text())["mask"] == "seg.dcm"
  assert capsys.readouterr().out.count("1 pancreas") == 3


def test_uids_that_were_lost_are_named_once(answer, tmp_path, capsys):
  answer(write_source(tmp_path / "a", "bare"), tmp_path / "rt.dcm", "rtstruct")
  said = [line for line in capsys.readouterr().out.splitlines() if "have no" in line]
  assert len(said) == 1
  assert "a: the slices have no StudyInstanceUID, FrameOfReferenceUID; the mask gets" in said[0]


def test_the_flag_has_the_formats_that_there_are():
  assert tuple(flags.FLAGS[predict._FORMAT.name].parser.enum_values) == OUTPUT_FORMATS


def test_a_nifti_scan_has_no_source(tmp_path):
  scan = FoundScan(tmp_path / "a.nii")
  assert read_mask_source(scan, "nifti") is None
  with pytest.raises(UserError, match=r"a\.nii: no DICOM"):
    read_mask_source(scan, "rtstruct")
