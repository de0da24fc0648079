"""A run of version 0.1.0, five steps of an Attention U-Net, goes on and predicts."""

import json
import tarfile

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.volumes.nifti import read_nifti, write_nifti
from tests.conftest import ROOT, run_command
from tfds_pancreas.records import open_records

# What version 0.1.0 wrote when it trained the same run for a second epoch.
SECOND_EPOCH = {
  "train_seg_loss": 1.32537,
  "validation_seg_loss": 1.39894,
  "test_seg_loss": 1.35324,
  "validation_dsc": 0.114845,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def resumed(phantoms, tmp_path_factory):
  """The run after a second epoch by this version."""
  folder = tmp_path_factory.mktemp("earlier")
  with tarfile.open(ROOT / "tests" / "workflows" / "run_of_0_1_0.tar.xz") as archive:
    archive.extractall(folder, filter="data")
  flags = (f"--workdir={folder}/run", f"--config.data.dir={phantoms}", "--config.train.epochs=2")
  done = run_command("attn_unet_jax.main", *flags)
  assert done.returncode == 0, done.stderr
  return folder / "run"


def test_it_goes_on_as_that_version_went_on(resumed):
  first, second = read_metrics(resumed / "metrics.csv")
  assert (first["epoch"], second["epoch"]) == ("1", "2")
  for column, value in SECOND_EPOCH.items():
    # The same bits on one machine; processors differ in the last ones.
    assert float(second[column]) == pytest.approx(value, rel=1e-3), column
  # The default of its time, which is another today.
  config = json.loads((resumed / "config.json").read_text())
  assert config["data"]["label_resampling"] == "nearest"


def test_it_predicts(resumed, phantoms, tmp_path):
  records = RecordDataset(open_records("phantom_ct/tiny", phantoms))
  image = records.load(records.ids[0]).image
  write_nifti(tmp_path / "scan.nii.gz", image)
  flags = (f"--input={tmp_path}/scan.nii.gz", f"--output={tmp_path}/mask.nii.gz")
  done = run_command("attn_unet_jax.predict", f"--workdir={resumed}", *flags)
  assert done.returncode == 0, done.stderr
  mask = read_nifti(tmp_path / "mask.nii.gz")
  assert mask.shape == image.shape
  # After ten steps it still calls all of the body an organ.
  assert set(np.unique(mask.array)) == {0, 1}
