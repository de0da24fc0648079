"""The flags `--config` and `--config.section.key` of a command."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides, change_config, take_overrides
from attn_unet_jax.config.reference import describe_keys
from attn_unet_jax.config.resolve import check_data, resolve_draft
from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import RunConfig, list_keys
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.config.switches import check_switches
from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError

# Flags of other commands or of other programs that mean a key of the config.
_OTHER_NAMES = {
  "accept": "data.accept",
  "data_dir": "data.dir",
  "dataset": "data.dataset",
  "folder": "data.folder",
  "labels": "data.labels",
  "lr": "optimizer.learning_rate",
}


def define_config(default: str | None = None, *, required: bool = True) -> None:
  """Defines the flag `--config`, required without a default, unless a run may stand for it."""
  flags.DEFINE_string(
    "config",
    default,
    "Experiment: a file such as experiments/pancreas.py, or a name such as pancreas; a variant "
    "after a colon: pancreas:phantom.",
    required=required and default is None,
  )


class ConfigFlags:
  """The keys of a config on the command line of this process.

  Attributes:
    texts: what was written for each key.
  """

  def __init__(self) -> None:
    self.texts: dict[str, str] = {}

  def take(self, arguments: Sequence[str]) -> list[str]:
    """Takes `--config.section.key=value` out of a command's arguments; returns the others.

    Raises:
      UserError: a key without a value.
    """
    rest, self.texts = take_overrides([_translate_name(argument) for argument in arguments])
    return rest

  def explain(self, flag: str) -> str:
    """Returns the key that a flag means: `--lr`, `--data.folder`, `--learning_rate`."""
    # A key that several networks read is listed once for each.
    names = list(dict.fromkeys(key.name for key in list_keys()))
    if flag in _OTHER_NAMES:
      return f"write --config.{_OTHER_NAMES[flag]}"
    same = [name for name in names if flag in (name, name.rpartition(".")[2])]
    return f"write --config.{same[0]}" if same else ""

  def describe(self) -> str:
    """Returns every key with its meaning, default and range."""
    return describe_keys()

  def read(self, *, data: bool = True, run: Path | None = None) -> RunConfig:
    """Makes the config of `--config` and the keys on the command line.

    Args:
      data: whether the command needs a data set to be named.
      run: the folder of a run, whose own config counts where `--config` is not given.

    Raises:
      UserError: the experiment file does not load, a value is not allowed, or there is neither
        `--config` nor a run.
    """
    # A run knows its own config: `main --workdir=RUN` alone goes on with it.
    if flags.FLAGS.config is None and run is not None:
      config = self._change_config_of(run, data=data)
    else:
      draft = load_experiment(flags.FLAGS.config)
      for line in apply_overrides(draft, self.texts):
        print_line(line)
      config = resolve_draft(draft, data=data)
    # XLA reads its flags when JAX first looks at the devices, which is soon after this.
    if config.deterministic:
      xla.make_deterministic()
    return config

  def _change_config_of(self, run: Path, *, data: bool) -> RunConfig:
    """Returns the config of a run with the keys on the command line."""
    path = run / "config.json"
    if not path.exists():
      raise UserError(
        f"--config is missing, and {run} is no run to go on with; for example: --config=pancreas"
      )
    config = change_config(load_config(path), self.texts)
    check_rules(config)
    check_switches(config, self.texts)
    if data:
      check_data(config.data)
    return config


# One for each process, as the flags of absl are.
CONFIG_FLAGS = ConfigFlags()


def _translate_name(argument: str) -> str:
  """Turns the name that another command has for a key into the key, and says so."""
  name, equals, value = argument.partition("=")
  key = _OTHER_NAMES.get(name.lstrip("-"))
  # A flag without a value cannot be told from one whose value is the next argument.
  if not equals or not name.startswith("-") or key is None or name.lstrip("-") == "lr":
    return argument
  if name.lstrip("-") in flags.FLAGS:  # which the command has a meaning of its own for
    return argument
  if key != "data.accept":  # which is called so in every message
    print_line(f"{name} is called --config.{key} here")
  return f"--config.{key}={value}"
