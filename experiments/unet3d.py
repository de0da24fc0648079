r"""3D U-Net on pancreas CT.

The network and the training of Cicek et al. 2016 (arXiv:1606.06650), on one organ instead of three
classes; data: Pancreas-CT, or any folder of images and labels:

  python -m attn_unet_jax.main --config=experiments/unet3d.py \
    --config.data.folder=DATA --workdir=runs/unet3d

  unet3d.py:phantom   padded and narrower, on the embedded phantoms, with the demo's patches:
                      python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
                      python -m attn_unet_jax.main --config=experiments/unet3d.py:phantom \
                        --workdir=runs/unet3d_phantom

The paper's: convolutions without padding on 132x132x116 voxels, batches of one, batch statistics at
test time too, cross-entropy with a reduced weight of the background, SGD for 70,000 steps;
rotation, scaling, grey values and smooth deformations (normal vectors of 4 voxels, 32 apart) as
augmentation. Between the grid's points a cubic spline that goes through their vectors moves less:
over all voxels by 4 m^(3/2) = 3.27 voxels, where m = 0.874 is the mean along an axis of the sum of
its squared weights. Its rates, weights and other ranges are not known; those here are ours. It
learns from few annotated slices: --config.data.labels=pancreas=1,unlabelled=2 where a value marks
the rest.

unet3d.py:phantom reached DSC 0.764 ± 0.032 on 12 test phantoms in 15 min on two busy cores.
"""

from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.variants import choose_variant, set_loss
from experiments import pancreas


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  variants = {"": _paper, "phantom": _phantom}
  return choose_variant("unet3d.py", arg, variants)


def _loss(config: ConfigDict) -> None:
  set_loss(config, weighted_ce=1.0)
  config.loss_options.class_weights = (0.1, 1.0)


def _paper() -> ConfigDict:
  config = default()
  config.model.name = "unet3d"
  config.model.feature_scale = 1.0
  config.model.test_statistics = "batch"  # as in training, whose batches are of one
  config.data.patch = (132, 132, 116)
  config.augment.flip = (0.0, 0.0, 0.0)
  config.augment.rotate_deg = (10.0, 10.0, 15.0)
  config.augment.scale = (0.85, 1.15)
  config.augment.scale_axes = (True, True, True)
  config.augment.shift = (0.0, 0.0, 0.0)
  config.augment.deform_sd = (3.27, 3.27, 3.27)  # see above
  config.augment.deform_spacing = 32.0
  config.augment.intensity_scale = (0.9, 1.1)
  config.augment.intensity_shift = (-0.1, 0.1)
  _loss(config)
  config.optimizer.name = "sgd"
  config.optimizer.momentum = 0.99
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 5e-4
  config.optimizer.schedule = "constant"
  config.train.batch_size = 1
  config.train.epochs = 1000
  config.train.steps_per_epoch = 70
  return config


def _phantom() -> ConfigDict:
  """The demo's patches, steps and optimiser, so that systems compare."""
  config = pancreas.get_config("phantom")
  config.model.name = "unet3d"
  config.model.padding = "SAME"  # unpadded, the least patch is 276 mm wide and leaves 12 mm
  _loss(config)
  # Undoes the weights of the loss, so that a probability of 0.5 decides.
  config.inference.class_weights = config.loss_options.class_weights
  return config
