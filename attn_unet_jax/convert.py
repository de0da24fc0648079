"""Makes a run out of weights of the reference PyTorch code, to predict with or to start from.

  python -m attn_unet_jax.convert --input=weights.pth --workdir=runs/reference \
    --config=experiments/pancreas.py:paper_loss \
    --config.data.labels=spleen=1,pancreas=2,kidney=3

WEIGHTS is a state_dict of unet_ct_dsv, unet_ct_single_att_dsv or unet_ct_multi_att_dsv: a
.safetensors file (needs the package safetensors), or a .pth file, which is read without running
any code in it (needs torch: pip install -e '.[bench]'). The config says the rest: the network, the
classes in the order of its outputs, and how scans are prepared. Nothing is overwritten.
"""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from attn_unet_jax import command, run
from attn_unet_jax.data.labels import class_names
from attn_unet_jax.errors import UserError
from attn_unet_jax.models.reference import describe, from_reference
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.logs import say
from attn_unet_jax.training.state import TrainState, abstract, network, start

_INPUT = flags.DEFINE_string("input", None, "A state_dict: .safetensors or .pth.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to make.", required=True)
config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")


def main() -> None:
  """The command."""
  config = command.checked_config(data=False)
  source, workdir = Path(_INPUT.value), Path(_WORKDIR.value)
  state = converted(source, config)
  if run.begun(workdir):
    raise UserError(f"--workdir={workdir}: holds a run already; choose another")
  run.claim(workdir, config)
  with checkpoints(workdir / "checkpoints", config.train.keep) as store:
    store.save(state)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  say(f"{source}: {count:,} parameters of {config.model.name} -> {workdir}")


def converted(source: Path, config: ConfigDict) -> TrainState:
  """The state before the first step, with the weights of a file.

  Raises:
    UserError: the file cannot be read, or holds another network than the config names.
  """
  state_dict = read_state_dict(source)
  module = network(config, len(class_names(config.data.labels)) + 1)
  try:
    variables = from_reference(state_dict, abstract(config, module).variables)
  except KeyError as error:
    raise UserError(
      f"config.model.name={config.model.name!r}: the reference has no variable like {error}; "
      f"the file holds {describe(state_dict)}"
    ) from None
  except ValueError as error:
    raise UserError(f"{source}: {error}; the file holds {describe(state_dict)}") from None
  return start(config, jax.tree.map(jnp.asarray, variables))


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
  """Arrays by name; nothing in the file is executed.

  Raises:
    UserError: no such file, a package is missing, or its content is something else.
  """
  if not path.is_file():
    raise UserError(f"--input={path}: no such file")
  if path.suffix == ".safetensors":
    read = _package("safetensors.numpy", path).load_file
    return _checked(lambda: read(path), path)
  torch = _package("torch", path)
  return _checked(lambda: _arrays(torch.load(path, map_location="cpu", weights_only=True)), path)


def _arrays(content: Any) -> dict[str, np.ndarray]:
  return {str(name): tensor.detach().float().numpy() for name, tensor in content.items()}


def _checked(read: Any, path: Path) -> dict[str, np.ndarray]:
  try:
    content: dict[str, np.ndarray] = read()
  except Exception as error:  # each reader raises its own
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise UserError(
      f"{path}: not a state_dict ({first[:120]}); save one by torch.save(net.state_dict(), FILE)"
    ) from None
  return content


def _package(name: str, path: Path) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError:
    raise UserError(
      f"{path}: to read it, the package {name.partition('.')[0]} is needed; "
      "pip install -e '.[bench]'"
    ) from None


if __name__ == "__main__":
  command.run(main)
