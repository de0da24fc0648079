"""The experiments of the other systems: valid, buildable, and the papers' recipes where known."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.augment.deformation import spline_basis
from attn_unet_jax.cases import folds
from attn_unet_jax.cases.folds import CaseSplit, choose_split
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.optimizer import check_patterns
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from experiments import dense_vnet, dual_attention, hnn, pancreas, pancreas_1mm, unet3d, vnet
from tests.configs import with_keys

VARIANTS = [
  *[(dense_vnet, variant) for variant in ("", "released", "dilated", "phantom")],
  *[(pancreas, variant) for variant in ("painted", "small", "real")],
  *[(hnn, variant) for variant in ("", "imagenet", "phantom", "stages", "phantom_stages")],
  *[(dual_attention, ""), (dual_attention, "phantom"), (unet3d, ""), (unet3d, "phantom")],
  *[(pancreas_1mm, ""), (pancreas_1mm, "phantom")],
  *[(vnet, ""), (vnet, "released"), (vnet, "phantom")],
]


def recipe(experiment, variant=""):
  """The config of an experiment, whatever data it is given."""
  return resolve_draft(experiment.get_config(variant), data=False)


@pytest.mark.parametrize(("experiment", "variant"), VARIANTS)
def test_is_valid_and_takes_its_patch(experiment, variant):
  config = recipe(experiment, variant)
  module = build_run_network(config, 2)
  assert all(n > 2 * m for n, m in zip(config.data.patch, module.output_margin, strict=True))


@pytest.mark.parametrize("experiment", [dual_attention, hnn, pancreas_1mm, unet3d, vnet])
def test_an_unknown_variant_is_refused(experiment):
  with pytest.raises(UserError, match="no such variant"):
    experiment.get_config("nope")


@pytest.mark.parametrize("experiment", [dense_vnet, dual_attention, hnn, unet3d, vnet])
def test_phantom_variants_have_the_demos_budget(experiment):
  ours, demo = recipe(experiment, "phantom"), recipe(pancreas, "phantom")
  if experiment is dense_vnet:  # its loss learns nothing where the organ is not
    demo = with_keys(demo, {"data.foreground_fraction": 1.0})
  assert (ours.train, ours.data, ours.augment) == (demo.train, demo.data, demo.augment)


def test_the_small_recipe_costs_what_the_demo_does_and_takes_any_folder():
  """Step for step, and with so many more steps as keep it within minutes."""
  small, demo = recipe(pancreas, "small"), recipe(pancreas, "phantom")
  assert (small.data.dataset, small.data.folder) == ("", "")
  changed = {"data.dataset": "phantom_ct/demo"} | {
    f"train.{key}": getattr(demo.train, key)
    for key in ("epochs", "steps_per_epoch", "validate_every")
  }
  assert with_keys(small, changed) == demo
  assert small.train.epochs * small.train.steps_per_epoch == 1000
  assert small.train.epochs % small.train.validate_every == 0


def test_the_recipe_of_the_3d_unet():
  config = recipe(unet3d)
  assert (config.model.padding, config.model.test_statistics) == ("VALID", "batch")
  assert config.data.patch == (132, 132, 116)
  assert config.loss.weights == {"weighted_ce": 1.0}
  assert config.train.epochs * config.train.steps_per_epoch == 70_000


def test_the_3d_unets_deformation_is_that_of_vectors_of_four_voxels():
  """SciPy's cubic spline through one vector among zeros: its square, summed over the axis.

  Vectors are independent, so that is what the mean variance between two of them is of theirs.
  """
  one = (np.arange(64) == 32).astype(float)
  m = np.sum(ndimage.zoom(one, 64, order=3, mode="grid-wrap", grid_mode=True) ** 2) / 64
  sd = 4 * m**1.5  # of the product of three axes
  assert recipe(unet3d).augment.deform_sd == pytest.approx((sd, sd, sd), rel=1e-3)


def test_the_deformation_of_vnet_is_that_of_coefficients_of_15_voxels():
  """Of B-splines themselves, along all three axes; across slices nothing moves."""
  weights = spline_basis(6401, 6400 / 4)
  sd = 15 * np.mean(np.sum(weights**2, axis=1)) ** 1.5
  assert recipe(vnet).augment.deform_sd == pytest.approx((sd, sd, 0), rel=0.01)


def test_the_recipe_of_vnet():
  config, released = recipe(vnet), recipe(vnet, "released")
  optimizer = config.optimizer
  assert (optimizer.name, optimizer.momentum, optimizer.learning_rate) == ("sgd", 0.99, 1e-4)
  assert (optimizer.bias_rate, optimizer.decay_biases, optimizer.weight_decay) == (2.0, False, 5e-4)
  assert optimizer.decay_epochs * config.train.steps_per_epoch == 25_000
  assert (config.data.patch, config.train.batch_size) == ((128, 128, 64), 2)
  assert config.loss.weights == {"squared_dice": 1.0}
  assert (config.augment.histogram_probability, config.augment.deform_probability) == (1.0, 0.5)
  assert released.loss.weights == {"vnet_caffe_dice": 1.0}
  assert config.inference.largest_component
  assert released.inference.largest_component
  assert recipe(vnet, "phantom").inference.largest_component
  assert released.train.epochs * released.train.steps_per_epoch == 100_000


def test_the_loss_of_dual_attention():
  assert recipe(dual_attention).loss.weights == {"dice": 1.0, "ce": 1.0}


def test_the_recipe_at_1_mm():
  config = recipe(pancreas_1mm)
  assert (config.data.spacing_mm, config.data.patch) == (1.0, (128, 128, 128))
  assert config.data.normalisation == "window"
  assert config.loss.weights == {"dice": 1.0, "ce": 1.0}
  assert config.optimizer.ema_decay > 0
  phantom, demo = recipe(pancreas_1mm, "phantom"), recipe(pancreas, "phantom")
  assert (phantom.train, phantom.data) == (demo.train, demo.data)


def test_the_recipe_of_dense_vnet():
  config, dilated = recipe(dense_vnet), recipe(dense_vnet, "dilated")
  assert config.loss.weights == {"dice_hinge": 1.0}
  assert (config.model.channels_kept, config.model.prior_size) == (0.5, 12)
  assert (config.data.patch, config.augment.corner_scale) == ((144, 144, 144), 0.1)
  assert config.train.epochs * config.train.steps_per_epoch == 5_000
  assert dilated.model.name == "dense_dilated"


def test_the_recipe_of_holistically_nested_networks():
  config, imagenet = recipe(hnn), recipe(hnn, "imagenet")
  for variant in (config, imagenet):
    assert variant.loss.weights == {"side_bce": 1.0}
    assert variant.data.window_hu == (-160.0, 240.0)
    assert variant.model.feature_scale == 1.0
  assert (config.model.trunk_norm, imagenet.model.trunk_norm) == ("group", "none")
  optimizer = imagenet.optimizer
  assert (optimizer.name, optimizer.momentum, optimizer.bias_rate) == ("sgd", 0.9, 2.0)
  assert optimizer.layer_rates == (("stage5", 100.0), ("side", 0.01), ("fuse", 0.001))
  # What it takes from a weight, rate x decay x weight, is HED's.
  assert optimizer.learning_rate * optimizer.weight_decay == pytest.approx(1e-6 * 2e-4)
  check_patterns(imagenet, abstract_state(imagenet, build_run_network(imagenet, 2)).params)


def test_the_recipe_for_real_slabs_takes_tumours_for_pancreas_and_its_own_patients():
  data = recipe(pancreas, "real").data
  mapping = parse_mapping(data.labels, {"background": 0, "pancreas": 1, "tumour": 2})
  assert mapping.apply(np.array([0, 1, 2]), "label").tolist() == [0, 1, 1]
  listed = folds.read_folds(Path(folds.__file__).parent / "fold_lists" / f"{data.folds}.json")
  ids = [case for part in folds.PARTS for case in listed["folds"][0][part]]
  assert len(choose_split(ids, None, data.folds, 0)[0].ids) == 37


@pytest.mark.parametrize("variant", ["real", "slabs"])
def test_the_recipes_for_real_ct_keep_organs_within_the_body(variant):
  # What a run said before is said again, unless it is asked.
  assert not recipe(pancreas).inference.within_body
  assert recipe(pancreas, variant).inference.within_body


def test_one_scan_is_found_from_any_folder(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  split, _ = choose_split(["scan"], None, recipe(pancreas, "one_scan").data.folds, 0)
  assert split == CaseSplit(("scan",), ("scan",), ("scan",))
