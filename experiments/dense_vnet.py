r"""Dense V-Net, and the dense dilated network before it, on pancreas CT or several organs.

Gibson et al. 2018 (IEEE TMI) and 2017 (MICCAI); data: Pancreas-CT, or any folder of images and
labels:

  python -m attn_unet_jax.main --config=experiments/dense_vnet.py \
    --config.data.folder=DATA --workdir=runs/dense_vnet

  dense_vnet.py:released   the released model's batch and number of steps
  dense_vnet.py:dilated    the dense dilated network
  dense_vnet.py:phantom    on the embedded phantoms, with the demo's patches, and without the prior:
    python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
    python -m attn_unet_jax.main --config=experiments/dense_vnet.py:phantom \
      --workdir=runs/dense_vnet_phantom

Up to eight organs are segmented together: --config.data.labels=spleen=1,...,pancreas=11. The
paper's: 144^3 voxels, batch-wise spatial dropout of 0.5, a prior of 12^3 cells for each class,
corners moved by 0.1, batches of 10, 5,000 steps of Adam at 0.001, and Dice with hinges (here the
released code's). Its scans are cropped to the abdomen and resized to 144^3; here a window is 360 mm
wide, so that the prior sees nearly the whole scan. dense_vnet.py:phantom
reached DSC 0.715 ± 0.069 on 12 test phantoms in 7 min on two busy cores, with
--config.model.name=dense_dilated 0.718 ± 0.076 in 16 min; no other was trained.
"""

from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.variants import choose_variant, set_loss, turn_off_augmentation
from experiments import pancreas


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  variants = {"": _paper, "released": _released, "dilated": _dilated, "phantom": _phantom}
  return choose_variant("dense_vnet.py", arg, variants)


def _loss(config: ConfigDict) -> None:
  set_loss(config, dice_hinge=1.0)


def _paper() -> ConfigDict:
  config = default()
  config.model.name = "dense_vnet"
  config.model.feature_scale = 1.0
  config.data.spacing_mm = 2.5
  config.data.patch = (144, 144, 144)
  config.data.normalisation = "zscore"
  config.data.foreground_fraction = 0.0
  turn_off_augmentation(config)
  config.augment.corner_scale = 0.1
  _loss(config)
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.0
  config.optimizer.schedule = "constant"
  config.train.batch_size = 10
  config.train.epochs = 50
  config.train.steps_per_epoch = 100
  return config


def _released() -> ConfigDict:
  config = _paper()
  config.train.batch_size = 6
  config.train.epochs = 30
  return config


def _dilated() -> ConfigDict:
  config = _paper()
  config.model.name = "dense_dilated"
  return config


def _phantom() -> ConfigDict:
  """The demo's patches, steps and optimiser, so that systems compare."""
  config = pancreas.get_config("phantom")
  config.model.name = "dense_vnet"
  config.model.feature_scale = 1.0
  config.model.prior_size = 0  # a window sees a part of the scan that may be anywhere
  config.model.channels_kept = 1.0  # so short a training needs all of them
  config.data.foreground_fraction = 1.0  # a sample without the organ has no gradient in this loss
  _loss(config)
  return config
