r"""Attention U-Net on pancreas CT at 1 mm, with what has been learned since the paper.

128^3 patches of the window -160 to 240 HU, half of them centred on the pancreas, Dice + cross-
entropy, AdamW with warm-up and a cosine decay, strong augmentation, predictions by the moving
average of the parameters. For a GPU or TPU with 40 GB or more; data: Pancreas-CT at `iso1mm`, or
any folder of images and labels:

  python -m attn_unet_jax.main --config=experiments/pancreas_1mm.py \
    --config.data.folder=DATA --workdir=runs/pancreas_1mm

  pancreas_1mm.py:phantom   its loss, optimiser and augmentation with the demo's patches and steps:

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m attn_unet_jax.main --config=experiments/pancreas_1mm.py:phantom \
    --workdir=runs/1mm_phantom

pancreas_1mm.py:phantom reached DSC 0.806 ± 0.047 on 12 test phantoms in 21 min on two busy cores.
The full recipe has not been run: no scan of Pancreas-CT was at hand. Published networks
of this kind reach DSC 0.85 to 0.87 there; that is its aim, not its result.
"""

from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.variants import choose_variant, set_loss
from experiments import pancreas


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  variants = {"": _full, "phantom": _phantom}
  return choose_variant("pancreas_1mm.py", arg, variants)


def _full() -> ConfigDict:
  config = default()
  config.model.feature_scale = 2.0
  config.model.dtype = "bfloat16"
  config.data.spacing_mm = 1.0
  config.data.patch = (128, 128, 128)
  config.data.label_resampling = "onehot_linear"
  _training(config)
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup_steps = 1000
  config.train.epochs = 400
  config.train.steps_per_epoch = 250
  return config


def _training(config: ConfigDict) -> None:
  set_loss(config, dice=1.0, ce=1.0)
  config.optimizer.name = "adamw"
  config.optimizer.weight_decay = 1e-2
  config.optimizer.schedule = "cosine"
  config.optimizer.ema_decay = 0.999
  config.augment.flip = (0.0, 0.0, 0.0)  # left and right matter: the liver is on one side
  config.augment.rotate_deg = (15.0, 15.0, 20.0)
  config.augment.scale = (0.75, 1.25)
  config.augment.scale_axes = (True, True, True)
  config.augment.shift = (0.0, 0.0, 0.0)
  config.augment.deform_sd = (2.0, 2.0, 2.0)
  config.augment.deform_probability = 0.3
  config.augment.intensity_scale = (0.8, 1.2)
  config.augment.intensity_shift = (-0.1, 0.1)
  config.augment.noise_sd = (0.0, 0.05)


def _phantom() -> ConfigDict:
  config = pancreas.get_config("phantom")
  _training(config)
  config.optimizer.warmup_steps = 40
  config.optimizer.ema_decay = 0.99  # 640 steps are too few for 0.999
  return config
