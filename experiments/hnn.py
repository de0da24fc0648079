r"""Holistically nested networks on pancreas CT: one stage, or all of them.

Roth et al. 2018 (arXiv:1702.00045); data: Pancreas-CT, or any folder of images and labels:

  python -m attn_unet_jax.main --config=experiments/hnn.py \
    --config.data.folder=DATA --workdir=runs/hnn

  hnn.py:imagenet   the paper's training, which starts from ImageNet's VGG-16, if you have a file of
                    torchvision's weights:
    python -m attn_unet_jax.convert --input=vgg16.pth --config=experiments/hnn.py:imagenet \
      --workdir=runs/vgg16
    python -m attn_unet_jax.main --config=experiments/hnn.py:imagenet \
      --config.init.workdir=runs/vgg16 --config.data.folder=DATA --workdir=runs/hnn
  hnn.py:phantom    narrower, on the embedded phantoms, with the demo's patches:
    python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
    python -m attn_unet_jax.main --config=experiments/hnn.py:phantom --workdir=runs/hnn_phantom

  hnn.py:stages     the paper's whole system: a box, in it networks of the interior and of the
                    boundary, a random forest over superpixels: nine trainings; needs the
                    extra `hnn`:
    python -m attn_unet_jax.main --config=experiments/hnn.py:stages \
      --config.data.folder=DATA --workdir=runs/hnn_stages
  hnn.py:phantom_stages   the same, narrow, on patches of 32^3 of the phantoms

Of the paper: the window, VGG-16 in each view, six maps a view, cross-entropy balanced by one
fraction of foreground for all slices (that of your data: python -m attn_unet_jax.info
--count_foreground=160 with the same flags; give it by --config.loss_options.foreground;
0: each slice's own, as Xie and Tu 2015, for which slices without the organ count nothing), no
augmentation, the fusion of the views, as many slices as its 100,000 iterations of ten. The default
starts from random weights, for which the paper's rates are far too high: it adds GroupNorm and
takes Adam. Unlike the paper the data lie on an isotropic grid, and a step sees all slices of a
patch. --config.data.target=boundary trains the network of the boundary (HNN-B). With the
balance a probability above 0.5 says no more than that a voxel is likelier foreground than the
average one, so at 0.5 recall is high and precision low. hnn.py:phantom
reached DSC 0.638 ± 0.122 on 12 test phantoms in 13 min on two busy cores, in twice the steps
0.707 ± 0.100, hnn.py:phantom_stages 0.565 ± 0.108 (docs/reference/results.md says why); no other
was trained.
"""

from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.variants import choose_variant, set_loss, turn_off_augmentation
from experiments import pancreas

_STEPS_PER_EPOCH = 100
_FOREGROUND = 0.0186  # of the demo's patches, measured in 160 batches
_PIXELS = 160 * 160  # of an axial slice of a patch


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  variants = {"": _from_scratch, "imagenet": _imagenet, "phantom": _phantom,
              "stages": _stages, "phantom_stages": _phantom_stages}  # fmt: skip
  return choose_variant("hnn.py", arg, variants)


def _network_and_loss(config: ConfigDict) -> None:
  config.model.name = "hnn"
  config.model.trunk_norm = "group"
  set_loss(config, side_bce=1.0)


def _from_scratch() -> ConfigDict:
  config = default()
  _network_and_loss(config)
  config.model.feature_scale = 1.0
  config.loss_options.foreground = 0.004  # 80 ml of pancreas in the 19.7 litres of a patch
  config.data.window_hu = (-160.0, 240.0)
  config.data.patch = (160, 160, 96)
  turn_off_augmentation(config)
  config.optimizer.learning_rate = 1e-4
  config.optimizer.weight_decay = 0.0
  config.optimizer.schedule = "cosine"
  config.train.batch_size = 1
  config.train.epochs = 10_000 // _STEPS_PER_EPOCH  # of about 100 slices a view
  config.train.steps_per_epoch = _STEPS_PER_EPOCH
  return config


def _imagenet() -> ConfigDict:
  """HED's solver. Its loss is a sum over pixels, ours the mean: rate and decay are scaled by them.

  The rate falls to a tenth after a third, as its 10,000 of 30,000 iterations.
  """
  config = _from_scratch()
  config.model.trunk_norm = "none"
  config.optimizer.name = "sgd"
  config.optimizer.momentum = 0.9
  config.optimizer.learning_rate = 1e-6 * _PIXELS
  config.optimizer.weight_decay = 2e-4 / _PIXELS
  config.optimizer.bias_rate = 2.0
  config.optimizer.decay_biases = False
  config.optimizer.layer_rates = (("stage5", 100.0), ("side", 0.01), ("fuse", 0.001))
  config.optimizer.schedule = "step"
  config.optimizer.decay_epochs = config.train.epochs // 3
  config.optimizer.decay_factor = 0.1
  return config


def _phantom() -> ConfigDict:
  """The demo's patches, steps and optimiser, so that systems compare."""
  config = pancreas.get_config("phantom")
  _network_and_loss(config)
  config.model.feature_scale = 8.0
  config.loss_options.foreground = _FOREGROUND
  config.inference.class_weights = (_FOREGROUND, 1 - _FOREGROUND)  # the loss's balance
  return config


def _stages() -> ConfigDict:
  """Both stages with the same recipe; the second sees boxes, in which the pancreas fills more."""
  config = _from_scratch()
  config.stages.count = 2
  config.stages.patch = (96, 96, 64)
  # A pancreas of 80 ml in the 4.7 litres of a patch. As a cylinder of 150 mm it has a third of its
  # voxels of 2 mm outside.
  config.stages.foreground = (0.017, 0.006)
  return config


def _phantom_stages() -> ConfigDict:
  config = _phantom()
  config.inference.class_weights = ()  # the forest finds its own threshold
  config.data.patch = (32, 32, 32)
  config.stages.count = 2
  # In patches of 32^3: anywhere, in the boxes, and of their boundary; measured as above.
  config.loss_options.foreground = 0.0317
  config.stages.foreground = (0.071, 0.030)
  return config
