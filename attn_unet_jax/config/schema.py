"""Every key of a run, composed from the options of the packages.

`draft.py` makes the draft that an experiment (`experiments/*.py`) changes; flags
`--config.section.key=value` change it again; `resolve_draft` makes a `RunConfig` of it, by
`build.py`, whose sections are the packages' own options. The keys of `model`, `optimizer` and
`loss_options` depend on the network, the optimiser and the losses: there a draft holds only what
was said.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from attn_unet_jax.augment.options import OKTAY_2018
from attn_unet_jax.evaluation.options import EvaluationOptions, ScoringRecipe
from attn_unet_jax.inference.options import InferenceOptions
from attn_unet_jax.losses.options import LOSSES, LossOptions
from attn_unet_jax.models.options import NETWORKS, AttentionUNetOptions, NetworkOptions
from attn_unet_jax.painting.options import Painting
from attn_unet_jax.patches.options import PatchOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.options import (
  NOT_NEGATIVE,
  Options,
  Rule,
  field_types,
  option,
)
from attn_unet_jax.stages.options import StageOptions, StageRecipe
from attn_unet_jax.training.options import (
  OPTIMIZERS,
  AdamOptions,
  InitOptions,
  OptimizerOptions,
  ParallelOptions,
  TrainingRecipe,
  TrainOptions,
)

OPEN_SECTIONS = ("model", "optimizer", "loss_options")  # whose keys depend on a choice


@dataclass(frozen=True)
class RunConfig(TrainingRecipe, StageRecipe, ScoringRecipe):
  """The options that decide a run.

  Attributes:
    deterministic: whether a GPU repeats its bits too.
    model: the network, one of `NETWORKS` or one from outside the package.
  """

  deterministic: bool = False
  model: NetworkOptions = AttentionUNetOptions()


@dataclass(frozen=True)
class GeneralOptions(Options):
  """The keys that belong to no section."""

  seed: int = option(
    0,
    "Seed of initialisation, patches and augmentation.",
    Rule("0 to 2^30 - 1", lambda value: 0 <= value < 2**30),
  )
  deterministic: bool = option(False, "Equal bits on every start of a GPU too; slower.")


def _loss_weights() -> type[Options]:
  """Makes the section `loss`: a weight for every registered loss, and losses from outside."""
  defaults = LossOptions().weights
  keys: list[Any] = [
    (name, float, option(defaults.get(name, 0.0), f"Weight. {entry.doc}", NOT_NEGATIVE))
    for name, entry in sorted(LOSSES.items())
  ]
  doc = "(import path, weight) pairs of losses of your own, like (('my_losses:topology', 0.5),)."
  pairs = Rule("pairs of an import path and a weight of at least 0", _are_weights, whole=True)
  keys.append(("external", tuple[tuple[str, float], ...], option((), doc, pairs)))
  return dataclasses.make_dataclass("LossWeights", keys, bases=(Options,), frozen=True)


def _are_weights(pairs: tuple[Any, ...]) -> bool:
  fits = all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
  return fits and all(
    isinstance(path, str)
    and path.count(":") == 1
    and isinstance(weight, (int, float))
    and weight >= 0
    for path, weight in pairs
  )


# Made once: flags, help and stored configs must all see the same keys.
LossWeights = _loss_weights()

# Sections whose keys are always the same, with what stands there where nothing is said.
FIXED_SECTIONS: dict[str, Options] = {
  "": GeneralOptions(),
  "init": InitOptions(),
  "data": PatchOptions(),
  "augment": OKTAY_2018,
  "painting": Painting(),
  "loss": LossWeights(),
  "train": TrainOptions(),
  "parallel": ParallelOptions(),
  "stages": StageOptions(),
  "inference": InferenceOptions(),
  "evaluation": EvaluationOptions(),
}


class Key(NamedTuple):
  """A key of the config, and what is known about it.

  Attributes:
    name: with its section, as after `--config.`.
    kind: its type.
    field: default, rules and meaning.
    reader: the network, optimiser or loss that reads it; '' if every run does.
    default: its value where nothing is said.
  """

  name: str
  kind: Any
  field: "dataclasses.Field[Any]"
  reader: str
  default: Any


def list_keys() -> Iterator[Key]:
  """Lists every key; one that several networks, optimisers or losses read comes once for each."""
  # The defaults of a section are those of its object, not of its class: a run augments as the paper
  # does, while an Augmentation by itself draws nothing.
  for section, options in FIXED_SECTIONS.items():
    yield from _keys_of(section, type(options), "", options)
  for name, network in NETWORKS.items():
    yield from _keys_of("model", network, name)
  for name, optimizer in OPTIMIZERS.items():
    yield from _keys_of("optimizer", optimizer, name)
  for name, entry in LOSSES.items():
    yield from _keys_of("loss_options", entry.options, name)


def _keys_of(
  section: str, options: type[Options], reader: str, defaults: Options | None = None
) -> Iterator[Key]:
  kinds = field_types(options)
  for field in dataclasses.fields(options):
    name = join_key(section, flag_name(field))
    default = getattr(defaults, field.name) if defaults else field.default
    yield Key(name, kinds[field.name], field, reader, default)


def network_options(name: Any = None) -> type[NetworkOptions]:
  """Returns the options of a network: a name of `NETWORKS`, or an import path.

  Raises:
    UserError: there is no such network.
  """
  # A draft says no name where nothing was chosen.
  name = AttentionUNetOptions().name if name is None else name
  if isinstance(name, str) and ":" in name:
    from attn_unet_jax.models.build import external_options  # loads JAX, for such networks alone

    return external_options(name)
  if name not in NETWORKS:
    raise UserError(
      f"config.model.name={name!r}: must be one of {tuple(NETWORKS)}, or an import path like "
      "my_package.my_module:MyNet"
    )
  return NETWORKS[name]


def optimizer_options(name: Any = None) -> type[OptimizerOptions]:
  """Returns the options of an optimiser by its name.

  Raises:
    UserError: there is no such optimiser.
  """
  name = AdamOptions().name if name is None else name
  if name not in OPTIMIZERS:
    raise UserError(f"config.optimizer.name={name!r}: must be one of {tuple(OPTIMIZERS)}")
  return OPTIMIZERS[name]


def find_unmet_condition(
  options: Options, field: "dataclasses.Field[Any]"
) -> tuple[str, Any] | None:
  """Returns the condition under which a field is read, where it does not hold."""
  only_if: tuple[str, Any] | None = field.metadata.get("only_if")
  return only_if if only_if and getattr(options, only_if[0]) != only_if[1] else None


def suggest_key(key: str) -> str:
  """Returns the way out of an unknown key: the key most like it, whatever its section."""
  names = dict.fromkeys(known.name for known in list_keys())
  # A key in the wrong section is the most frequent mistake, and looks like no other key as a whole.
  last = key.rpartition(".")[2]
  if same := [name for name in names if name.rpartition(".")[2] == last]:
    return f"did you mean config.{same[0]}?"
  if like := difflib.get_close_matches(key, names, 1):
    return f"did you mean config.{like[0]}?"
  return "docs/reference/config.md and --help list the keys"


def flatten(config: RunConfig) -> dict[str, Any]:
  """Returns every key that a run reads with its value: `{'data.patch': (48, 48, 48), ...}`."""
  flat: dict[str, Any] = {"seed": config.seed, "deterministic": config.deterministic}
  for section in (*filter(None, FIXED_SECTIONS), *OPEN_SECTIONS):
    if section == "loss":
      # Losses of weight 0 too: one that a stored config leaves out gets its default weight.
      flat |= {f"loss.{name}": config.loss.weights.get(name, 0.0) for name in sorted(LOSSES)}
      external = [(term.name, term.weight) for term in config.loss.terms if term.name not in LOSSES]
      flat["loss.external"] = tuple(external)
    elif section == "loss_options":
      for term in config.loss.terms:
        flat |= _flatten_options(section, term.options)
    else:
      flat |= _flatten_options(section, getattr(config, section))
  return flat


def _flatten_options(section: str, options: Any) -> dict[str, Any]:
  return {
    join_key(section, flag_name(field)): getattr(options, field.name)
    for field in dataclasses.fields(options)
    # `build` would refuse a key whose condition does not hold.
    if not find_unmet_condition(options, field)
  }


def read_keys(values: Mapping[str, Any]) -> set[str]:
  """Returns the keys that a run reads whose network, optimiser, schedule and losses are given."""
  network = network_options(values.get("model.name"))
  chosen = {"model": network, "optimizer": optimizer_options(values.get("optimizer.name"))}
  keys = {
    key.name for section, o in FIXED_SECTIONS.items() for key in _keys_of(section, type(o), "")
  }
  for section, options in chosen.items():
    for key in _keys_of(section, options, ""):
      only_if = key.field.metadata.get("only_if")
      # A schedule that is not given is the default one, which decides as well what is read.
      standard = {field.name: field.default for field in dataclasses.fields(options)}
      if not only_if or only_if[1] == values.get(f"{section}.{only_if[0]}", standard[only_if[0]]):
        keys.add(key.name)
  for name, entry in LOSSES.items():
    if values.get(f"loss.{name}", LossOptions().weights.get(name, 0.0)):
      keys |= {key.name for key in _keys_of("loss_options", entry.options, name)}
  return keys


def flag_name(field: "dataclasses.Field[Any]") -> str:
  """Returns the last part of an option's key, which may differ from the name of its field."""
  return field.metadata.get("key") or field.name


def join_key(section: str, name: str) -> str:
  """Returns the whole key; that of a general option has no section."""
  return f"{section}.{name}" if section else name
