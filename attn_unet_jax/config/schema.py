"""Every key of a run: its default and one line of meaning; `config_rules.py` says what may be.

An experiment (`experiments/*.py`) starts from `default()` and changes what differs; a flag
`--config.section.key=value` changes it again. The resolved whole is written to the run's
`config.json`. Code reads a key as `config.section.key` or through a local named like its section.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from attn_unet_jax.config import rules
from attn_unet_jax.runtime.errors import UserError


def default() -> ConfigDict:
  """All keys with their defaults, locked: an unknown key fails."""
  config = ConfigDict()
  config.seed = 0  # of initialisation, patches and augmentation
  config.deterministic = False  # equal bits on every start of a GPU too; slower

  config.model = ConfigDict()
  config.model.name = "attention_unet"  # a network of attn_unet_jax.models
  config.model.gates = 2  # attention gates per skip: 2 (multi) or 1 (single)
  config.model.gating = "progressive"  # signal of a gate: the level below; shared: the bottleneck
  config.model.gate = "sigmoid"  # sigmoid, softplus (for the inner ReLU) or softmax (over voxels)
  config.model.gate_finest = False  # whether the finest skip is gated too
  config.model.feature_scale = 4.0  # filters are int(published widths / feature_scale)
  config.model.gate_bias_init = placeholder(float)  # start of psi's bias; 3: open; None: published
  config.model.attention_joining = "product"  # dual_attention: of space and channel; max or mean
  config.model.channel_reduction = 0  # dual_attention: a narrower layer before the channels'; 0: no
  config.model.parallel_skips = "levels"  # dual_attention: of all levels, or the level's own
  config.model.dilation_rates = ()  # dense_*: per stack, a tuple of its layers'; (): the network's
  config.model.channels_kept = 0.5  # dense_*: part of a layer's channels in a step; 1: no dropout
  config.model.keep_block_input = False  # dense_*: a stack's input is part of its output
  config.model.prior_size = 12  # dense_*: cells a side of the prior of each class; 0: none
  config.model.trunk_norm = "none"  # hnn: as VGG-16; group: GroupNorm, to learn from random weights
  config.model.padding = "VALID"  # unet3d: VALID (as published, the output is smaller) or SAME
  config.model.test_statistics = "running"  # unet3d: batch norm outside training; running or batch
  config.model.upsampling = "align_corners"  # U-Nets but unet3d; or half_pixel
  config.model.conv = "auto"  # form of the 3-D convolution; auto: by platform and shape
  config.model.remat = 0  # finest levels computed again going backward: less GPU or TPU memory
  config.model.dtype = "float32"  # of activations; parameters and losses stay float32

  config.init = ConfigDict()
  config.init.workdir = ""  # a run to start from: its best parameters, classes matched by name
  config.init.freeze = ""  # a regex: parameters with it in their path stay as they are

  config.data = ConfigDict()
  config.data.dataset = ""  # records made by tfds_pancreas.build, such as phantom_ct/demo
  config.data.dir = "data"  # where the records lie
  config.data.folder = ""  # or: a folder with imagesTr/NAME.nii.gz and labelsTr/NAME.nii.gz
  config.data.labels = "pancreas"  # CLASS=VALUE+VALUE,...; names where the data carries names
  config.data.folds = ""  # a packaged list or a JSON file: docs/reference/data-layouts.md
  config.data.fold = 0  # which fold of that list
  config.data.spacing_mm = 2.0  # of the working grid, isotropic
  config.data.blur_mm = 0.0  # sd of a Gaussian blur of the image before it is resampled
  config.data.target = "interior"  # what is learnt of the organ; boundary: its outermost voxels
  config.data.label_resampling = "nearest"  # nearest, or onehot_linear
  config.data.labelled_slices = (0, 0, 0)  # train on every k-th slice across X, Y, Z; zeros: on all
  config.data.normalisation = "window"  # window: window_hu to [0, 1]; zscore: by the whole scan
  config.data.window_hu = (-160.0, 240.0)  # lower and upper end of the window, HU
  config.data.patch = (160, 160, 96)  # voxels of the working grid
  config.data.foreground_fraction = 0.5  # of the patches, centred on a foreground voxel
  config.data.cases_per_block = 8  # cases that are open at a time
  config.data.patches_per_case = 4  # cut from a case before the next block is opened

  config.data.boxes = ""  # a JSON file, see data/boxes.py: work inside these; '': on whole scans
  config.data.source = "auto"  # of patches: resident (in device memory), streaming; auto: by size
  config.data.prepared = ""  # folder of prepared scans, for several runs; '': streaming has its own

  config.augment = ConfigDict()  # neutral values switch a part off
  config.augment.flip = (0.5, 0.5, 0.0)  # probability along X, Y, Z
  config.augment.rotate_deg = (0.0, 0.0, 15.0)  # largest angle about X, Y, Z, degrees
  config.augment.scale = (0.7, 1.3)  # range of the zoom
  config.augment.scale_axes = (True, True, False)  # axes that are zoomed, each by its own draw
  config.augment.shift = (0.1, 0.1, 0.0)  # largest shift, fraction of the patch
  config.augment.corner_scale = 0.0  # s: corners times 1 - s to 1, each coordinate by itself
  config.augment.spatial_probability = 1.0  # that rotation, zoom and shift apply to a patch
  config.augment.deform_sd = (0.0, 0.0, 0.0)  # of a smooth random displacement, voxels
  config.augment.deform_spacing = 32.0  # voxels between its control points
  config.augment.deform_probability = 1.0  # that it applies to a patch
  config.augment.histogram_probability = 0.0  # of intensities mapped to another open case's
  config.augment.intensity_scale = (1.0, 1.0)  # range of a factor, after normalisation
  config.augment.intensity_shift = (0.0, 0.0)  # range of a summand, after normalisation
  config.augment.noise_sd = (0.0, 0.0)  # range of the noise's sd, after normalisation

  config.loss = ConfigDict()  # weights of the terms of attn_unet_jax.losses
  config.loss.dice = 1.0  # soft Dice of the foreground classes
  config.loss.bce = 1.0  # binary cross-entropy of foreground against background
  config.loss.ce = 0.0  # cross-entropy over all classes
  config.loss.reference_dice = 0.0  # the released Attention U-Net's Dice
  config.loss.squared_dice = 0.0  # V-Net's Dice
  config.loss.vnet_caffe_dice = 0.0  # the released V-Net's: hard Dice with a gradient of its own
  config.loss.dice_hinge = 0.0  # Dense V-Net's: squared Dice, and penalties on lost classes
  config.loss.balanced_bce = 0.0  # bce with foreground and background balanced by their sizes
  config.loss.side_bce = 0.0  # hnn: balanced_bce of every side output of every view, by slices
  config.loss.generalised_dice = 0.0  # classes weighted by their inverse squared volume
  config.loss.tversky = 0.0  # Dice with false positives and negatives weighted apart
  config.loss.weighted_ce = 0.0  # cross-entropy by class_weights, over labelled voxels
  config.loss.focal = 0.0  # cross-entropy with easy voxels played down

  config.loss_options = ConfigDict()
  config.loss_options.class_weights = ()  # weighted_ce: per class, background first; (): all 1
  config.loss_options.foreground = 0.0  # balanced_bce, side_bce: its part; 0: each patch's, slice's
  config.loss_options.focal_gamma = 2.0  # focal: 0 is plain cross-entropy
  config.loss_options.tversky_alpha = 0.3  # tversky: weight of false positives
  config.loss_options.tversky_beta = 0.7  # tversky: weight of false negatives

  config.optimizer = ConfigDict()
  config.optimizer.name = "adam"  # adam (with coupled L2, as the reference), adamw or sgd
  config.optimizer.learning_rate = 1e-4
  config.optimizer.betas = (0.9, 0.999)  # adam, adamw
  config.optimizer.momentum = 0.9  # sgd
  config.optimizer.nesterov = False  # sgd: look ahead by the momentum
  config.optimizer.weight_decay = 1e-6  # adam, sgd: L2 added to the gradient; adamw: decoupled
  config.optimizer.bias_rate = 1.0  # factor on the rate of every bias; V-Net: 2
  config.optimizer.layer_rates = ()  # (regex, factor) pairs on the rate by path; the first counts
  config.optimizer.decay_biases = True  # whether the decay applies to biases too; V-Net: no
  config.optimizer.schedule = "step"  # constant, step or cosine
  config.optimizer.decay_epochs = 250  # step: epochs between decays
  config.optimizer.decay_factor = 0.5  # step: the rate's factor at each
  config.optimizer.warmup_steps = 0  # linear from zero, with any schedule
  config.optimizer.ema_decay = 0.0  # of averaged parameters, used outside training; 0: none

  config.train = ConfigDict()
  config.train.epochs = 1000
  config.train.steps_per_epoch = 31
  config.train.batch_size = 2  # patches per step, over all devices
  config.train.accumulate = 1  # parts of the batch, one after the other; batch norm sees a part
  config.train.loss_patches = 8  # fixed patches per split on which losses are logged
  config.train.validate_every = 10  # epochs between validations on whole scans
  config.train.save_every = 10  # epochs between checkpoints (each validation saves too)
  config.train.keep = 2  # latest checkpoints kept, beside the best
  config.train.skip_nonfinite = 0  # updates left out for a NaN or inf before the run is stopped

  config.parallel = ConfigDict()
  config.parallel.mode = "jit"  # jit: one program over a mesh; pmap: each device runs its part
  config.parallel.data = 0  # devices, of all hosts, over which the batch is divided; 0: all
  config.parallel.space = 1  # jit: devices over which each patch is divided, along X
  config.parallel.batch_norm = "global"  # statistics of the whole batch; local: of a device's part

  config.stages = ConfigDict()  # several networks and a forest, see attn_unet_jax/stages
  config.stages.count = 1  # 1: one network; 2: a box, then interior, boundary and a forest in it
  config.stages.inner_folds = 2  # of the training cases, for what the forest learns from
  config.stages.patch = (0, 0, 0)  # of the second stage; zeros: data.patch. A box is at least this
  config.stages.foreground = (0.0, 0.0)  # of its two networks' losses; 0: loss_options.foreground
  config.stages.box_margin_mm = 0.0  # around what the first stage finds
  config.stages.superpixel_mm = 12.0  # side of a superpixel, about

  config.inference = ConfigDict()
  config.inference.patch = (0, 0, 0)  # of the sliding window; zeros: data.patch
  config.inference.overlap = 0.5  # of neighbouring windows, fraction
  config.inference.class_weights = ()  # divide the probabilities: undoes a loss's weights; (): none
  config.inference.largest_component = False  # of a class's mask nothing else is kept; V-Net: True
  return config.lock()


def validate(config: ConfigDict, *, data: bool = True) -> ConfigDict:
  """Checks values that do not depend on the data; with `data`, also that a data set is named.

  Raises:
    UserError: naming the key, its value and what is allowed.
  """
  standards = flatten(default())
  differing = sorted(standards.keys() ^ flatten(config).keys())
  if differing:
    raise UserError(f"config: keys {differing[:5]} are missing or unknown; start from default()")
  rules.check(config, standards)
  if data and bool(config.data.dataset) == bool(config.data.folder):
    raise UserError(
      f"config.data.dataset={config.data.dataset!r} and config.data.folder={config.data.folder!r}: "
      "give one of the two"
    )
  return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """`{'data.patch': (48, 48, 48), ...}`."""
  flat: dict[str, Any] = {}
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat
