"""Every system, from its experiment file to a mask: two steps, saved, opened again, applied.

`test_commands.py` does the same with Attention U-Net by the commands, and trains it longer.
"""

import jax
import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.workflows.load_run import load_best
from attn_unet_jax.workflows.train import train_and_test
from experiments import dense_vnet, dual_attention, hnn, pancreas, pancreas_1mm, unet3d, vnet
from tests.configs import with_keys

SHORT = {
  "model.dilation_rates": ((1,), (1, 1)),
  "data.labels": "liver,pancreas",
  # The paper's, which the phantom experiment leaves out; all channels, so that some can be dropped.
  "model.feature_scale": 1.0,
  "model.channels_kept": 0.5,
  "model.prior_size": 4,
}
DILATED = {"model.dilation_rates": ((1, 2),), "model.prior_size": 4}


def slow(name, experiment, changes=None, mark=pytest.mark.slow):
  """A system that takes up to a minute, nearly all of it to compile."""
  file = experiment.__name__.rpartition(".")[2]
  return pytest.param(name, experiment, changes or {}, marks=mark, id=f"{file}-{name}")


def soak(name, experiment):
  """One that CI trains elsewhere, or that differs so by its recipe, gates or blocks alone."""
  return slow(name, experiment, mark=pytest.mark.soak)


SYSTEMS = [
  pytest.param("dense_dilated", dense_vnet, DILATED, id="dense_vnet-dense_dilated"),
  slow("dense_vnet", dense_vnet, SHORT),
  *(slow("dual_attention", dual_attention), slow("hnn", hnn)),
  slow("unet3d", unet3d),
  soak("attention_unet", pancreas),  # `make demo`, and the run of an earlier version
  *(soak("attention_unet", pancreas_1mm), soak("unet", pancreas)),
  *(soak("vnet", vnet), soak("vnet_caffe", vnet)),
]


def smallest(name, experiment, changes, phantoms):
  """The phantom variant with 16^3 patches and the fewest channels; all else is its own."""
  small = {
    "model.name": name,
    "model.feature_scale": 32.0,
    "data.dir": str(phantoms),
    "data.dataset": "phantom_ct/tiny",
    "data.spacing_mm": 10.0,
    "data.patch": (16, 16, 16),
    "train.epochs": 1,
    "train.steps_per_epoch": 2,
    "train.loss_patches": 2,
  }
  if name != "hnn":  # whose convolutions have one form
    small["model.conv"] = "native"
  return with_keys(resolve_draft(experiment.get_config("phantom")), small | changes)


@pytest.mark.parametrize(("name", "experiment", "changes"), SYSTEMS)
def test_trains_saves_restores_and_segments(name, experiment, changes, phantoms, tmp_path):
  config = smallest(name, experiment, changes, phantoms)
  fold = open_fold(config.data)
  train_and_test(config, fold, tmp_path)
  (row,) = read_metrics(tmp_path / "metrics.csv")
  assert np.isfinite([float(row[f"{part}_seg_loss"]) for part in ("train", "validation")]).all()
  restored = load_best(tmp_path)
  assert (restored.step, _import_path(restored.module)) == (2, NETWORKS[name].module)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.variables))
  if "model.channels_kept" in changes:
    _dropped_channels_and_learnt_its_prior(restored.variables)
  assert len(fold.split.test) == 2
  for case_id in fold.split.test:
    scan = fold.dataset.load(case_id).image
    mask = nib.load(tmp_path / "predictions" / f"{case_id}.nii.gz")
    assert mask.shape == scan.array.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    values = np.unique(np.asarray(mask.dataobj))
    assert set(values) <= set(range(len(restored.classes) + 1))


def _import_path(module):
  return f"{type(module).__module__}:{type(module).__name__}"


def _dropped_channels_and_learnt_its_prior(variables):
  """Of the 8 channels of the second stack's first layer, 4 are kept in each of the two steps."""
  statistics = variables["batch_stats"]["stack2"]
  first, last = (statistics[layer]["norm"]["BatchNorm_0"] for layer in ("layer0", "layer1"))
  never_kept = first["mean"] == 0
  np.testing.assert_array_equal(first["var"] == 1, never_kept)
  assert 0 < never_kept.sum() <= 4
  assert (last["mean"] != 0).all()  # the last layer of a stack keeps all of them
  assert (variables["params"]["prior"] != 1).all()
