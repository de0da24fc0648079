"""What values keys may have together, as far as neither data nor devices decide."""

from typing import Any

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.labels import class_names
from attn_unet_jax.losses.options import LOSSES
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.divisible import check_mean_of_parts


def check_rules(config: RunConfig) -> None:
  """Checks what a run's keys must be together.

  Raises:
    UserError: naming the key, its value and what is allowed.
  """
  _require_rule(
    bool(config.loss.terms), "loss", config.loss.weights, "at least one weight other than 0"
  )
  _check_class_weights(config)
  _check_hnn(config)
  _check_freeze(config)
  _check_stages(config)
  _check_soft_labels(config)
  _check_partial_labels(config)
  _check_painting(config)
  _check_second_set(config)
  _check_largest_component(config)
  _check_accumulation(config)
  _check_space(config)


def _check_class_weights(config: RunConfig) -> None:
  """Checks that each class has one weight; the background comes first."""
  classes = 1 + len(class_names(config.data.labels))
  of_loss = [term.arguments.get("class_weights", ()) for term in config.loss.terms]
  keyed: list[tuple[str, Any, float]] = [("loss_options.class_weights", w, 0) for w in of_loss]
  # Inference divides by its weights, so that none may be 0. A loss may leave a class out.
  keyed.append(("inference.class_weights", config.inference.class_weights, 1e-9))
  for key, weights, least in keyed:
    fits = all(_is_number(weight) and weight >= least for weight in weights)
    fits = not weights or (fits and len(weights) == classes and any(weights))
    rule = f"() or {classes} values of at least {least}, not all 0, background first"
    _require_rule(fits, key, weights, rule)


def _is_number(value: Any) -> bool:
  # A bool is an int to Python, and no weight.
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_stages(config: RunConfig) -> None:
  if config.stages.count == 1:
    return
  data = config.data
  _require_rule(
    len(class_names(data.labels)) == 1, "data.labels", data.labels, "one class in stages"
  )
  # The stages make the boxes and the targets of their networks themselves.
  _require_rule(not data.boxes, "data.boxes", data.boxes, "empty: stages find their own")
  rule = "interior: stages set it"
  _require_rule(data.target == "interior", "data.target", data.target, rule)


def _check_soft_labels(config: RunConfig) -> None:
  """Checks that labels and losses fit soft labels, which are shares of one class."""
  if not config.data.has_soft_labels:
    return
  data, needs = config.data, "for data.label_resampling=occupancy"
  one = f"one class {needs}"
  _require_rule(len(class_names(data.labels)) == 1, "data.labels", data.labels, one)
  _require_rule(data.target == "interior", "data.target", data.target, f"interior {needs}")
  _require_rule(
    not any(data.labelled_slices), "data.labelled_slices", data.labelled_slices, f"zeros {needs}"
  )
  _require_rule(config.stages.count == 1, "stages.count", config.stages.count, f"1 {needs}")
  takes = ", ".join(name for name, entry in LOSSES.items() if entry.takes_shares)
  for term in config.loss.terms:
    rule = f"0 {needs}: only {takes} take soft labels"
    _require_rule(term.entry.takes_shares, f"loss.{term.name}", term.weight, rule)


def _check_partial_labels(config: RunConfig) -> None:
  """Checks that target and losses fit a class that the data does not label."""
  data = config.data
  if all(map(all, data.labelled_sets)):
    return
  text = f"{data.labels!r}" + (f", also_labels={data.also_labels!r}" if data.also else "")
  needs = f"for a class that is none in config.data.labels={text}"
  _require_rule(
    config.data.target == "interior", "data.target", config.data.target, f"interior {needs}"
  )
  takes = ", ".join(name for name, entry in LOSSES.items() if entry.partial)
  for term in config.loss.terms:
    rule = f"0 {needs}: only {takes} take partial labels"
    _require_rule(bool(term.entry.partial), f"loss.{term.name}", term.weight, rule)


def _check_painting(config: RunConfig) -> None:
  if not config.painting.enabled:
    return
  data, needs = config.data, "for painting.enabled"
  # Mean and sd of the whole scan, and its histogram: of an image that is painted patch by patch.
  rule = f"window {needs}: no whole scan is painted"
  _require_rule(data.normalisation == "window", "data.normalisation", data.normalisation, rule)
  matched = config.augment.histogram_probability
  rule = f"0 {needs}: what is painted has no histogram to match"
  _require_rule(not matched, "augment.histogram_probability", matched, rule)


def _check_second_set(config: RunConfig) -> None:
  data = config.data
  if not data.also:
    return
  needs = f"for config.data.also={data.also!r}"
  _require_rule(config.stages.count == 1, "stages.count", config.stages.count, f"1 {needs}")
  _require_rule(not data.boxes, "data.boxes", data.boxes, f"empty {needs}: it has none")


def _check_largest_component(config: RunConfig) -> None:
  fits = not config.inference.largest_component or config.data.target == "interior"
  rule = "False for data.target=boundary: so thin a layer falls into many pieces"
  _require_rule(fits, "inference.largest_component", config.inference.largest_component, rule)
  pieces, names = config.inference.one_piece, class_names(config.data.labels)
  fits = not pieces or config.data.target == "interior"
  _require_rule(fits, "inference.one_piece", pieces, rule.replace("False", "empty"))
  known = set(config.inference.one_piece_names) <= set(names)
  _require_rule(known, "inference.one_piece", pieces, f"classes out of {', '.join(names)}")


def _check_hnn(config: RunConfig) -> None:
  """Checks that hnn, and only hnn, is trained by the maps of its views, and by nothing else."""
  weight = config.loss.weights.get("side_bce", 0.0)
  if config.model.name == "hnn":
    rule = "the only loss of hnn, as in experiments/hnn.py: set the weights of the others to 0"
    _require_rule(list(config.loss.weights) == ["side_bce"], "loss.side_bce", weight, rule)
  else:
    rule = f"0 for {config.model.name}: only hnn has side outputs"
    _require_rule(not weight, "loss.side_bce", weight, rule)


def _check_freeze(config: RunConfig) -> None:
  fits = bool(config.init.workdir) or not config.init.freeze
  rule = "empty without config.init.workdir: what would be kept is a random start"
  _require_rule(fits, "init.freeze", config.init.freeze, rule)


def _check_accumulation(config: RunConfig) -> None:
  batch, parts = config.train.batch_size, config.train.accumulate
  # In parts of one size the mean of their losses is that of the batch.
  rule = f"a divisor of config.train.batch_size={batch}"
  _require_rule(batch % parts == 0, "train.accumulate", parts, rule)
  if parts > 1:
    needs = f"config.train.accumulate={parts}"
    check_mean_of_parts(config.loss, needs, "--config.train.accumulate=1")


def _check_space(config: RunConfig) -> None:
  space, form = config.parallel.space, getattr(config.model, "conv", "auto")
  # `pmap` gives whole patches to each device. Only a mesh divides a patch.
  if space > 1 and config.parallel.mode == "pmap":
    raise UserError(
      f"config.parallel.space={space}: 'pmap' divides no patch; use --config.parallel.mode=jit"
    )
  if space > 1 and form in ("onednn", "planes", "winograd"):
    raise UserError(
      f"config.model.conv={form!r}: would gather the patch that config.parallel.space={space} "
      "divides; use auto"
    )


def _require_rule(holds: bool, key: str, value: Any, rule: str) -> None:
  if not holds:
    raise UserError(f"config.{key}={value!r}: must be {rule}")
