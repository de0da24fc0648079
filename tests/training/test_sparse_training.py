"""Training on sparse labels, from the files on: what nobody labelled has no part in it."""

import functools

import jax
import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.training.state import make_initial_state
from attn_unet_jax.training.step import train_step
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys
from tests.line import Line

SHAPE = (9, 8, 7)
SLICES = np.ones(SHAPE, bool)
SLICES[:, :, [1, 4]] = False  # of slices 0-2 and 3-5 the middle ones are kept
VOXELS = np.random.default_rng(9).random(SHAPE) < 0.6
# Where labels are forgotten, and how; the labels there of one folder and of the other; the setting
# by which they would be known.
SPARSE = {
  "labelled_slices": (SLICES, (0, 0, 3), (lambda x: x, lambda x: 1 - x), (0, 0, 0)),
  "labels": (
    *(VOXELS, "pancreas=1,unlabelled=2+3"),
    (lambda x: 0 * x + 2, lambda x: 0 * x + 3),
    "pancreas=1+3,background=*",
  ),
}


def write(folder, forgotten, label_there, sign):
  """Six scans."""
  for seed, name in enumerate("abcdef"):
    hu = np.random.default_rng(seed).integers(-150, 230, SHAPE)
    label = hu > 150
    hu, label = (
      np.where(forgotten, sign * hu, hu),
      np.where(forgotten, label_there(1 * label), label),
    )
    write_nifti(folder / "imagesTr" / f"{name}.nii.gz", Volume(hu.astype(np.int16), np.eye(4)))
    write_nifti(folder / "labelsTr" / f"{name}.nii.gz", Volume(label.astype(np.uint8), np.eye(4)))


def two_steps(config, folder, step):
  """The parameters of a network that looks at single voxels."""
  config = with_keys(config, {"data.folder": str(folder)})
  data = make_resident(open_fold(config.data).load("training"), config.data.patch)
  image = np.zeros((1, *config.data.patch, 1), np.float32)
  state = make_initial_state(config, Line().init(jax.random.key(0), image, False))
  for _ in range(2):
    state, outcome = step(state, data)
    assert np.isfinite([outcome.loss, outcome.gradient_norm]).all()
  return {name: float(value[0]) for name, value in state.params.items()}


@pytest.mark.parametrize("key", SPARSE)
def test_what_is_not_labelled_has_no_part_in_two_steps(config, key, tmp_path):
  """Other intensities and labels there, the same parameters to the bit. `tests/losses` has each."""
  forgotten, sparse, labels, dense = SPARSE[key]
  config = with_keys(
    config,
    {
      "data.dataset": "",
      "data.spacing_mm": 1.0,
      "data.patch": (5, 5, 5),
      "train.batch_size": 4,
      "augment.flip": (0.0, 0.0, 0.0),
      "loss.weighted_ce": 1.0,  # 3D U-Net's; dice and bce are the defaults
    },
  )
  step = jax.jit(functools.partial(train_step, config, Line()))
  for name, label_there, sign in zip("ab", labels, (1, -1), strict=True):
    write(tmp_path / name, forgotten, label_there, sign)
  config = with_keys(config, {f"data.{key}": sparse})
  one, other = (two_steps(config, tmp_path / name, step) for name in "ab")
  assert one == other
  assert one["kernel"] != 0.5
  config = with_keys(config, {f"data.{key}": dense})
  one, other = (two_steps(config, tmp_path / name, step) for name in "ab")
  assert one != other
