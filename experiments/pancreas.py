r"""Attention U-Net on pancreas CT.

The paper's recipe (Oktay et al. 2018, as in its first released configs) with the Dice + BCE loss;
data: Pancreas-CT, or any folder of images and labels:

  python -m attn_unet_jax.main --config=experiments/pancreas.py \
    --config.data.folder=DATA --workdir=runs/pancreas

  pancreas.py:paper_loss   the same with the released code's Dice alone
  pancreas.py:small        for your own scans on a laptop: 3 mm, an eighth of the width, 1000 steps
                           of 48^3, which two cores take in minutes
  pancreas.py:phantom      the demo: small, on the embedded phantoms (`make demo`):
                           DSC 0.75 to 0.86 on 12 of them, by rounding and seed, in 10 min
  pancreas.py:painted      the demo on CT painted on real label maps (tfds_pancreas/painted_ct):
                           DSC 0.307 on maps that were held out, 0.000 on one real scan
  pancreas.py:real         slabs of real CT, 37 patients of the Decathlon's Task07 with tumours, and
                           six organs painted on label maps in the step, half of the patches each
                           (docs/how-to/train-on-real-slabs.md)
  pancreas.py:slabs        those slabs alone
  pancreas.py:one_scan     memorise one 3 mm scan, called scan: shows that a set-up learns
"""

import functools
from collections.abc import Callable

from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.variants import choose_variant, set_loss, turn_off_augmentation


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  changes = {
    "": lambda _: None,
    "paper_loss": _paper_loss,
    "small": _small,
    "phantom": _phantom,
    "painted": _painted,
    "real": _real,
    "slabs": _slabs,
    "one_scan": _one_scan,
  }
  variants = {name: functools.partial(_paper, change) for name, change in changes.items()}
  return choose_variant("pancreas.py", arg, variants)


def _paper(change: Callable[[ConfigDict], None]) -> ConfigDict:
  config = default()
  config.data.blur_mm = 0.75
  config.data.normalisation = "zscore"
  config.data.foreground_fraction = 0.0  # the released code crops anywhere
  change(config)
  return config


def _paper_loss(config: ConfigDict) -> None:
  set_loss(config, reference_dice=1.0)


def _coarse(config: ConfigDict) -> None:
  """What a 2-core machine trains in minutes: 3 mm, small patches, a high rate that decays."""
  config.data.blur_mm = 0.0
  config.data.spacing_mm = 3.0
  config.data.normalisation = "window"
  config.data.patch = (48, 48, 48)
  config.data.foreground_fraction = 0.5
  config.model.feature_scale = 8.0
  config.optimizer.schedule = "cosine"
  config.optimizer.learning_rate = 2e-3
  config.train.save_every = 1


def _augment_body(config: ConfigDict) -> None:
  """Turns and stretches a little: what bodies and their place in the scanner differ by."""
  config.augment.flip = (0.0, 0.0, 0.0)  # left and right matter: the liver is on one side
  config.augment.rotate_deg = (5.0, 5.0, 10.0)
  config.augment.scale = (0.85, 1.15)
  config.augment.scale_axes = (True, True, True)
  config.augment.shift = (0.0, 0.0, 0.0)


def _small(config: ConfigDict) -> None:
  _coarse(config)
  _augment_body(config)
  config.train.epochs = 20
  config.train.steps_per_epoch = 50
  config.train.validate_every = 20  # whole scans take longer than an epoch of small patches


def _phantom(config: ConfigDict) -> None:
  _coarse(config)
  _augment_body(config)
  config.data.dataset = "phantom_ct/demo"
  config.train.epochs = 8
  config.train.steps_per_epoch = 80
  config.train.validate_every = 8  # once, at the end


def _painted(config: ConfigDict) -> None:
  _phantom(config)
  config.data.dataset = "painted_ct/demo"
  config.augment.rotate_deg = (8.0, 8.0, 12.0)
  config.augment.scale = (0.8, 1.2)
  config.augment.intensity_scale = (0.9, 1.1)
  config.augment.intensity_shift = (-0.08, 0.08)


def _real(config: ConfigDict) -> None:
  _slabs(config)
  _paint_beside(config)


def _slabs(config: ConfigDict) -> None:
  _coarse(config)
  config.data.dataset = "folder_ct/native_msd07_slabs"
  config.data.folds = "msd07_slabs"
  config.data.labels = "pancreas=pancreas+tumour"
  # The slabs are 2 to 22 voxels thick: a cube would be padding for the most part.
  config.data.patch = (80, 80, 16)
  config.data.foreground_fraction = 0.67
  set_loss(config, dice=1.0, ce=1.0)
  config.train.batch_size = 4
  config.inference.one_piece = "pancreas"
  config.inference.within_body = True
  config.augment.flip = (0.0, 0.0, 0.0)  # left and right matter: the liver is on one side
  # Little about X and Y: a slab that is turned there leaves a thin patch.
  config.augment.rotate_deg = (5.0, 5.0, 15.0)
  config.augment.scale = (0.8, 1.25)
  config.augment.scale_axes = (True, True, True)
  config.augment.shift = (0.0, 0.0, 0.0)
  config.augment.intensity_scale = (0.85, 1.15)
  config.augment.intensity_shift = (-0.08, 0.08)
  config.augment.deform_sd = (1.5, 1.5, 0.7)
  config.augment.deform_spacing = 16.0
  # Intensities as nnU-Net augments them, with fewer inversions: bone and air keep their places.
  config.augment.noise_sd = (0.0, 0.1)
  config.augment.noise_probability = 0.1
  config.augment.blur_probability = 0.2
  config.augment.brightness_probability = 0.15
  config.augment.contrast_probability = 0.15
  config.augment.low_resolution_probability = 0.25
  config.augment.gamma_probability = 0.3
  config.augment.gamma_inverted_probability = 0.05
  config.train.epochs = 60
  config.train.steps_per_epoch = 50
  config.train.validate_every = 10


def _paint_beside(config: ConfigDict) -> None:
  """Mixes in patches that are painted on label maps, with five more organs to learn."""
  config.data.also = "painted_ct/maps"
  config.data.also_labels = "pancreas,liver,spleen,stomach,duodenum,kidney=kidney_left+kidney_right"
  # Only the maps label these: of a voxel of a slab nobody knows whether it is liver.
  others = "liver=none,spleen=none,stomach=none,duodenum=none,kidney=none"
  config.data.labels = f"pancreas=pancreas+tumour,{others}"
  # By voxels most patches would be centred on the liver, the largest organ.
  config.data.foreground_choice = "classes"
  # Only the pancreas has validation cases to choose by; that these are one piece is known.
  config.inference.one_piece = "pancreas,liver,spleen,stomach,duodenum"
  config.painting.enabled = True
  config.painting.free_tissues = 0.1
  config.painting.fat = (0.0, 0.35)
  config.painting.noise_hu = (3.0, 22.0)
  # As on CT: bones that are rims above a marrow as smooth as an organ, and septa of fat in muscles.
  config.painting.bone_rim_hu = (50.0, 400.0)
  config.painting.muscle_fat = (0.0, 0.3)


def _one_scan(config: ConfigDict) -> None:
  _coarse(config)
  config.data.folds = "one_scan"
  turn_off_augmentation(config)
  config.train.epochs = 8
  config.train.steps_per_epoch = 100
  config.train.validate_every = 4
