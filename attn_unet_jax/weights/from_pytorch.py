"""Makes the initial state of a run from a file of PyTorch weights."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from attn_unet_jax.labels import class_names
from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.options import NetworkOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import (
  TrainState,
  abstract_state,
  create_state,
  make_initial_state,
)
from attn_unet_jax.weights.oktay2018 import convert_released, describe_state_dict
from attn_unet_jax.weights.vgg16 import insert_vgg16_trunk


def load_pytorch_state(source: Path, recipe: TrainingRecipe, model: NetworkOptions) -> TrainState:
  """Loads the weights of a file into the state before the first step.

  For `hnn` the file holds VGG-16, whose trunk every view takes; the other parameters are those of a
  new run.

  Raises:
    UserError: the file cannot be read, or holds another network than the config names.
  """
  state_dict = read_state_dict(source)
  # One class more: the background.
  module = build_network(model, len(class_names(recipe.data.labels)) + 1)
  if model.name == "hnn":
    return _make_trunk_state(source, state_dict, recipe, model, module)
  try:
    # Shapes are enough: every parameter comes from the file.
    variables = convert_released(state_dict, abstract_state(recipe, module).variables)
  except KeyError as error:
    raise UserError(
      f"config.model.name={model.name!r}: the reference has no variable like {error}; "
      f"the file holds {describe_state_dict(state_dict)}"
    ) from None
  except ValueError as error:
    raise UserError(
      f"{source}: {error}; the file holds {describe_state_dict(state_dict)}"
    ) from None
  return make_initial_state(recipe, jax.device_put(variables))


def _make_trunk_state(
  source: Path,
  state_dict: dict[str, np.ndarray],
  recipe: TrainingRecipe,
  model: NetworkOptions,
  module: nn.Module,
) -> TrainState:
  """Makes the state before the first step with ImageNet's trunk in every view.

  Raises:
    UserError: a convolution of the trunk is missing or has another shape.
  """
  # The trunk covers a part of the parameters only; the seed decides the others.
  fresh = create_state(recipe, module)
  try:
    params = insert_vgg16_trunk(state_dict, fresh.params)
  except ValueError as error:
    raise UserError(
      f"{source}: {error}; needed is torchvision's vgg16 (without batch norm), and "
      f"config.model.feature_scale=1 (now {model.feature_scale:g})"
    ) from None
  return make_initial_state(recipe, {"params": jax.device_put(params)})


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
  """Reads arrays by name from a `.safetensors` or PyTorch file, without executing its content.

  Raises:
    UserError: there is no such file, a package is missing, the file is no `state_dict`, or a value
      in it is not finite.
  """
  if not path.is_file():
    why = "a folder; name the file in it" if path.is_dir() else "no such file"
    raise UserError(f"--input={path}: {why}, a state_dict: .safetensors or .pth")
  if path.suffix == ".safetensors":
    read = _import_package("safetensors.numpy", path).load_file
    return _require_finite(_read_or_explain(lambda: read(path), path), path)
  # `weights_only` refuses pickled code, which an untrusted file may contain.
  torch = _import_package("torch", path)
  arrays = _read_or_explain(
    lambda: _convert_tensors(torch.load(path, map_location="cpu", weights_only=True)), path
  )
  return _require_finite(arrays, path)


def _require_finite(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
  # Probabilities of NaN are above no other: each mask would be empty, without a word.
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise UserError(
        f"{path}: {name} has values that are NaN or infinite, as of a training that diverged; take "
        "an earlier checkpoint"
      )
  return arrays


def _convert_tensors(content: Any) -> dict[str, np.ndarray]:
  # NumPy knows no bfloat16, so every type becomes float32.
  return {str(name): tensor.detach().float().numpy() for name, tensor in content.items()}


def _read_or_explain(
  read: Callable[[], dict[str, np.ndarray]], path: Path
) -> dict[str, np.ndarray]:
  """Returns `read()`; raises a UserError that says how to save a `state_dict` if it fails."""
  try:
    return read()
  except Exception as error:  # each reader raises types of its own
    # PyTorch explains over many lines; the first one says what is wrong.
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise UserError(
      f"{path}: not a state_dict ({first[:120]}); save one by torch.save(net.state_dict(), FILE)"
    ) from None


def _import_package(name: str, path: Path) -> Any:
  # The readers are extras: only this command needs them.
  try:
    return importlib.import_module(name)
  except ImportError:
    raise UserError(
      f"{path}: reading it needs the package {name.partition('.')[0]}; pip install -e '.[bench]'"
    ) from None
