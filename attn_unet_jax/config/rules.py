"""What values the keys of `config.py` may have, as far as neither data nor devices decide."""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from attn_unet_jax.augment import Augmentation
from attn_unet_jax.labels import class_names
from attn_unet_jax.losses import OVER_THE_BATCH
from attn_unet_jax.runtime.errors import UserError

_CHOICES = {
  "model.name": (
    *("attention_unet", "dense_dilated", "dense_vnet", "dual_attention", "hnn", "unet"),
    *("unet3d", "vnet", "vnet_caffe"),
  ),
  "model.gates": (1, 2),
  "model.gating": ("progressive", "shared"),
  "model.gate": ("sigmoid", "softplus", "softmax"),
  "model.attention_joining": ("product", "max", "mean"),
  "model.parallel_skips": ("levels", "own"),
  "model.trunk_norm": ("none", "group"),
  "model.padding": ("VALID", "SAME"),
  "model.upsampling": ("align_corners", "half_pixel"),
  "model.test_statistics": ("running", "batch"),
  "model.conv": ("auto", "native", "packed", "planes", "winograd"),
  "model.dtype": ("float32", "bfloat16"),
  "data.source": ("auto", "resident", "streaming"),
  "data.normalisation": ("window", "zscore"),
  "data.target": ("interior", "boundary"),
  "data.label_resampling": ("nearest", "onehot_linear"),
  "optimizer.name": ("adam", "adamw", "sgd"),
  "optimizer.schedule": ("constant", "step", "cosine"),
  "stages.count": (1, 2),
  "parallel.mode": ("jit", "pmap"),
  "parallel.batch_norm": ("global", "local"),
}


_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
  (
    (
      *("data.cases_per_block", "data.patches_per_case", "model.feature_scale"),
      *("optimizer.learning_rate", "optimizer.decay_epochs"),
      *("optimizer.decay_factor", "train.epochs", "train.steps_per_epoch", "train.batch_size"),
      *("train.loss_patches", "train.keep", "train.validate_every", "train.save_every"),
      *("parallel.space", "train.accumulate", "stages.superpixel_mm"),
    ),
    lambda value: value > 0,
    "above 0",
  ),
  (
    (
      *("data.blur_mm", "data.labelled_slices", "data.fold", "parallel.data"),
      *("optimizer.weight_decay", "optimizer.warmup_steps", "train.skip_nonfinite"),
      *("model.remat", "stages.patch", "stages.box_margin_mm"),
      *("optimizer.bias_rate", "loss_options.focal_gamma", "loss_options.tversky_alpha"),
      *("loss_options.tversky_beta", "model.channel_reduction", "model.prior_size"),
    ),
    lambda value: value >= 0,
    "at least 0",
  ),
  (
    (
      *("optimizer.betas", "optimizer.momentum", "optimizer.ema_decay", "inference.overlap"),
      *("loss_options.foreground", "stages.foreground", "augment.corner_scale"),
    ),
    lambda value: 0 <= value < 1,
    "at least 0, below 1",
  ),
  (("data.spacing_mm",), lambda value: 1e-4 <= value <= 100, "0.0001 to 100 mm"),
  (("data.foreground_fraction",), lambda value: 0 <= value <= 1, "0 to 1"),
  (("stages.inner_folds",), lambda value: value >= 2, "at least 2"),
  (("model.channels_kept",), lambda value: 0 < value <= 1, "above 0, at most 1"),
  (("model.feature_scale",), lambda value: value <= 64, "at most 64, which leaves one channel"),
  (("model.remat",), lambda value: value <= 5, "at most 5, the levels of the deepest networks"),
  (("seed",), lambda value: 0 <= value < 2**30, "0 to 2^30 - 1"),
)


def check(config: ConfigDict, standards: Mapping[str, Any]) -> None:
  """Checks the values of a config that has every key.

  Args:
    config: what is checked.
    standards: the default of every key, by its full name.

  Raises:
    UserError: naming the key, its value and what is allowed.
  """
  for key, standard in standards.items():
    _check_type(config, key, standard)
    _require(_is_finite(_value(config, key)), config, key, "finite")
  for key, allowed in _CHOICES.items():
    _require(_value(config, key) in allowed, config, key, f"one of {allowed}")
  for keys, holds, rule in _RANGES:
    for key in keys:
      value = _value(config, key)
      values = value if isinstance(value, tuple) else (value,)
      _require(all(map(holds, values)), config, key, rule)
  try:
    Augmentation(**config.augment)
  except ValueError as error:
    raise UserError(f"config.augment: {error}") from None
  low, high = config.data.window_hu
  _require(low < high, config, "data.window_hu", "lower end below the upper")
  for name, weight in config.loss.items():
    _require(weight >= 0, config, f"loss.{name}", "at least 0")
  _require(any(config.loss.values()), config, "loss", "at least one weight other than 0")
  _check_class_weights(config)
  _check_hnn(config)
  _check_patterns(config)
  _check_stages(config)
  _check_pieces(config)
  _check_dilation(config)
  _check_accumulation(config)
  _check_space(config)


def _check_type(config: ConfigDict, key: str, standard: Any) -> None:
  """A value's type is its default's; the one default of None stands for a float."""
  value, kind = _value(config, key), float if standard is None else type(standard)
  if kind is tuple and standard:  # an empty default takes any length
    kind = type(standard[0])
    fits = isinstance(value, tuple) and len(value) == len(standard)
    rule = f"{len(standard)} values of type {kind.__name__}, like {standard}"
    _require(fits and all(_is(item, kind) for item in value), config, key, rule)
  else:
    fits = _is(value, kind) or (standard is None and value is None)
    _require(fits, config, key, f"of type {kind.__name__}")


def _is(value: Any, kind: type) -> bool:
  if kind is not bool and isinstance(value, bool):  # which Python counts among the integers
    return False
  return isinstance(value, (int, float) if kind is float else kind)


def _is_finite(value: Any) -> bool:
  if isinstance(value, tuple):
    return all(map(_is_finite, value))
  # A whole number may be larger than any float, into which it is made somewhere.
  return not isinstance(value, (int, float)) or abs(value) <= sys.float_info.max


def _check_dilation(config: ConfigDict) -> None:
  rates = config.model.dilation_rates
  fits = all(isinstance(stack, tuple) and stack for stack in rates)
  fits = fits and all(isinstance(rate, int) and rate > 0 for stack in rates for rate in stack)
  _require(fits, config, "model.dilation_rates", "tuples of whole numbers above 0, one a stack")


def _check_class_weights(config: ConfigDict) -> None:
  classes = 1 + len(class_names(config.data.labels))
  for key, least in (("loss_options.class_weights", 0), ("inference.class_weights", 1e-9)):
    weights = _value(config, key)
    fits = all(_is(weight, float) and weight >= least for weight in weights)
    fits = not weights or (fits and len(weights) == classes and any(weights))
    rule = f"() or {classes} values of at least {least}, not all 0, background first"
    _require(fits, config, key, rule)


def _check_stages(config: ConfigDict) -> None:
  if config.stages.count == 1:
    return
  _require(len(class_names(config.data.labels)) == 1, config, "data.labels", "one class in stages")
  _require(not config.data.boxes, config, "data.boxes", "empty: stages find their own")
  _require(config.data.target == "interior", config, "data.target", "interior: stages set it")


def _check_pieces(config: ConfigDict) -> None:
  fits = not config.inference.largest_component or config.data.target == "interior"
  rule = "False for data.target=boundary: so thin a layer falls into many pieces"
  _require(fits, config, "inference.largest_component", rule)


def _check_hnn(config: ConfigDict) -> None:
  """Its views are trained by their own maps alone, which no other network has."""
  of_sides = [name for name, weight in config.loss.items() if weight] == ["side_bce"]
  if config.model.name == "hnn":
    rule = "the only loss of hnn, as in experiments/hnn.py: set the weights of the others to 0"
    _require(of_sides, config, "loss.side_bce", rule)
  else:
    rule = f"0 for {config.model.name}: only hnn has side outputs"
    _require(not config.loss.side_bce, config, "loss.side_bce", rule)


def _check_patterns(config: ConfigDict) -> None:
  rates = config.optimizer.layer_rates
  fits = all(isinstance(pair, tuple) and len(pair) == 2 for pair in rates)
  fits = fits and all(isinstance(p, str) and isinstance(f, (int, float)) for p, f in rates)
  rule = "pairs of a regex and a factor of at least 0, like (('gating', 0.1),)"
  _require(fits and all(f >= 0 for _, f in rates), config, "optimizer.layer_rates", rule)
  for key, patterns in (
    ("init.freeze", [config.init.freeze]),
    ("optimizer.layer_rates", [pattern for pattern, _ in rates]),
  ):
    for pattern in patterns:
      _require(_is_regex(pattern), config, key, "regular expressions")
  _require(
    bool(config.init.workdir) or not config.init.freeze,
    config,
    "init.freeze",
    "empty without config.init.workdir: what would be kept is a random start",
  )


def _check_accumulation(config: ConfigDict) -> None:
  batch, parts = config.train.batch_size, config.train.accumulate
  rule = f"a divisor of config.train.batch_size={batch}"
  _require(batch % parts == 0, config, "train.accumulate", rule)
  if parts > 1:
    check_mean_of_parts(config, f"config.train.accumulate={parts}", "--config.train.accumulate=1")


def is_mean_of_parts(config: ConfigDict) -> bool:
  """Whether the loss of a batch is the mean of its parts' losses."""
  return not any(config.loss[name] for name in OVER_THE_BATCH)


def check_mean_of_parts(config: ConfigDict, needs: str, instead: str) -> None:
  """Refuses a loss of a batch that is not the mean of its parts' losses.

  Args:
    config: the run's config.
    needs: the key and value that divide the batch.
    instead: the flag that does not.

  Raises:
    UserError: it is not.
  """
  for name in sorted(OVER_THE_BATCH):
    if config.loss[name]:
      raise UserError(
        f"config.loss.{name}={config.loss[name]}: over a divided batch it is not the mean of its "
        f"parts, as {needs} needs; use {instead}"
      )


def _check_space(config: ConfigDict) -> None:
  space, form = config.parallel.space, config.model.conv
  if space > 1 and config.parallel.mode == "pmap":
    raise UserError(
      f"config.parallel.space={space}: 'pmap' divides no patch; use --config.parallel.mode=jit"
    )
  if space > 1 and form in ("planes", "winograd"):
    raise UserError(
      f"config.model.conv={form!r}: would gather the patch that config.parallel.space={space} "
      "divides; use auto"
    )


def _is_regex(pattern: str) -> bool:
  try:
    re.compile(pattern)
  except re.error:
    return False
  return True


def _value(config: ConfigDict, key: str) -> Any:
  section, _, name = key.rpartition(".")
  return (config[section] if section else config)[name]


def _require(holds: bool, config: ConfigDict, key: str, rule: str) -> None:
  if not holds:
    raise UserError(f"config.{key}={_value(config, key)!r}: must be {rule}")
