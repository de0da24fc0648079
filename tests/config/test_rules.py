"""What keys must be together."""

import pytest

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runtime.errors import UserError


def _check(**changes):
  check_rules(replace_keys(RunConfig(), {k.replace("__", "."): v for k, v in changes.items()}))


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("labels", "liver,spleen", "one class in stages"),
    ("boxes", "boxes.json", "empty: stages find their own"),
    ("target", "boundary", "interior: stages set it"),
  ],
)
def test_what_stages_decide_themselves_is_refused(key, value, complaint):
  _check(stages__count=2)
  with pytest.raises(UserError, match=f"config.data.{key}={value!r}: must be {complaint}"):
    _check(stages__count=2, **{f"data__{key}": value})


@pytest.mark.parametrize(
  ("changes", "complaint"),
  [
    ({"loss__focal": 1.0, "train__accumulate": 2}, r"loss\.focal=1\.0: .*accumulate=2 needs"),
    ({"parallel__space": 2, "parallel__mode": "pmap"}, "space=2: 'pmap' divides no patch"),
    ({"parallel__space": 2, "model__conv": "winograd"}, "conv='winograd': would gather the patch"),
    ({"parallel__space": 2, "model__conv": "onednn"}, "conv='onednn': would gather the patch"),
    ({"parallel__space": 2, "model__conv": "planes"}, "conv='planes': would gather the patch"),
  ],
)
def test_what_cannot_be_divided_on_any_device_is_refused(changes, complaint):
  for key in changes:  # each of them alone is allowed
    _check(**{key: changes[key]})
  with pytest.raises(UserError, match=complaint):
    _check(**changes)


def test_a_loss_from_outside_is_not_divided():
  external = {"loss__external": (("my_losses:mine", 0.5),)}
  _check(**external)
  with pytest.raises(UserError, match=r"loss\.my_losses:mine=0\.5: .*accumulate=2 needs"):
    _check(**external, train__accumulate=2)


def test_one_piece_of_a_boundary_is_refused():
  _check(inference__largest_component=True)
  with pytest.raises(UserError, match=r"inference\.largest_component=True: must be False"):
    _check(inference__largest_component=True, data__target="boundary")
  _check(inference__one_piece="pancreas")
  with pytest.raises(UserError, match=r"inference\.one_piece='liver': must be classes out of pan"):
    _check(inference__one_piece="liver")
  with pytest.raises(UserError, match=r"inference\.one_piece='pancreas': must be empty"):
    _check(inference__one_piece="pancreas", data__target="boundary")


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("data__labels", "liver,spleen", r"data\.labels='liver,spleen': must be one class for"),
    ("data__target", "boundary", r"data\.target='boundary': must be interior for"),
    ("data__labelled_slices", (0, 0, 2), "must be zeros for"),
    ("stages__count", 2, r"stages\.count=2: must be 1 for"),
    ("loss__focal", 1.0, r"loss\.focal=1\.0: must be 0 for .*only dice, bce, reference_dice take"),
    ("loss__external", (("my:loss", 1.0),), r"loss\.my:loss=1\.0: must be 0 for"),
  ],
)
def test_what_takes_no_soft_labels_is_refused(key, value, complaint):
  _check(data__label_resampling="occupancy")
  _check(**{key: value})
  with pytest.raises(UserError, match=complaint):
    _check(data__label_resampling="occupancy", **{key: value})


def test_no_loss_is_refused():
  with pytest.raises(UserError, match="at least one weight"):
    _check(loss__dice=0.0, loss__bce=0.0)


def test_hnn_is_trained_by_its_side_outputs_alone():
  others = {"loss__dice": 0.0, "loss__bce": 0.0}
  with pytest.raises(UserError, match=r"loss\.side_bce=0\.0: must be the only loss of hnn"):
    _check(model__name="hnn")
  with pytest.raises(UserError, match="must be the only loss of hnn"):
    _check(model__name="hnn", loss__side_bce=1.0)
  _check(model__name="hnn", loss__side_bce=1.0, **others)
  with pytest.raises(UserError, match="must be 0 for unet: only hnn has side outputs"):
    _check(model__name="unet", loss__side_bce=1.0, **others)


def test_parameters_are_frozen_that_another_run_has_learnt():
  _check(init__freeze="encoder", init__workdir="runs/a")
  with pytest.raises(UserError, match=r"init\.freeze='encoder': must be empty without"):
    _check(init__freeze="encoder")


def test_weights_are_one_for_each_class():
  weights = {"loss__weighted_ce": 1.0, "loss_options__class_weights": (0.1, 1.0, 1.0)}
  _check(data__labels="liver,pancreas", **weights)
  with pytest.raises(UserError, match=r"class_weights=\(0\.1, 1\.0, 1\.0\): must be \(\) or 2"):
    _check(**weights)


def test_a_class_that_the_data_does_not_label_needs_losses_that_take_it():
  labels = {"data__labels": "liver=none,pancreas"}
  _check(**labels)
  _check(**labels, loss__ce=1.0, loss__tversky=0.5)
  for name in ("focal", "reference_dice"):
    with pytest.raises(UserError, match=rf"loss\.{name}=1\.0: must be 0 for a class that is none"):
      _check(**labels, **{f"loss__{name}": 1.0})
  with pytest.raises(UserError, match=r"data\.target='boundary': must be interior for a class"):
    _check(**labels, data__target="boundary")
