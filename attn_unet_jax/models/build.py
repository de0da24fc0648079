"""Builds a network from its options."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from attn_unet_jax.models.options import NetworkOptions
from attn_unet_jax.runtime.import_path import load_object
from attn_unet_jax.runtime.options import option


def build_network(options: NetworkOptions, num_classes: int = 2) -> nn.Module:
  """Builds the Flax module of some options.

  Args:
    options: those of a network, see `NETWORKS`, or of a class made by `external_options`.
    num_classes: output channels, background included; `hnn` takes only 2.

  Raises:
    ValueError: too many classes for the network.
    UserError: a network from outside the package cannot be imported.
  """
  module: type[nn.Module] = load_object(options.module or options.name, "config.model.name")
  given: dict[str, Any] = dataclasses.asdict(options)
  # A flag and config.json hold the compute type as a word. The classes follow from the labels.
  given |= {"num_classes": num_classes, "dtype": jnp.dtype(options.dtype)}
  known = {field.name for field in dataclasses.fields(module)} - {"name", "parent"}
  # Options that the module has no field for, such as `name`, are not its arguments.
  network = module(**{key: value for key, value in given.items() if key in known})
  # Where it is a property, as in `hnn`, the number of classes is fixed.
  if getattr(network, "num_classes", num_classes) != num_classes:
    raise ValueError(f"{options.name} tells one class from the background, not {num_classes - 1}")
  return network


@functools.cache  # so that options that are made twice are equal
def external_options(path: str) -> type[NetworkOptions]:
  """Makes the options of a network from outside the package: the fields of its Flax module.

  Args:
    path: `my_package.my_module:MyNet`.

  Raises:
    UserError: it cannot be imported.
  """
  module: type[nn.Module] = load_object(path, "config.model.name")
  own: list[tuple[str, Any, Any]] = [
    (field.name, Any, option(field.default, f"A field of {path}."))
    for field in dataclasses.fields(module)
    # `name` and `parent` are Flax's own. The labels decide the classes, the division over
    # devices decides the batch's axis, and `dtype` is an option of every network.
    if field.name not in ("name", "parent", "num_classes", "dtype", "batch_axis")
  ]
  own.append(("name", str, option(path, "The network.")))
  return dataclasses.make_dataclass("ExternalOptions", own, bases=(NetworkOptions,), frozen=True)


def nearest_patch(network: nn.Module, patch: Sequence[int]) -> tuple[int, ...]:
  """Returns the patch size nearest to `patch` (voxels per axis) that the network can take.

  Sizes are `patch_offset + n * patch_multiple`, n = 1, 2, ...; most networks have no offset.
  """
  offsets = getattr(network, "patch_offset", (0, 0, 0))
  return tuple(
    # At least one unit: rounding alone would bring a small patch to size 0.
    offset + unit * max(1, round((size - offset) / unit))
    for size, unit, offset in zip(patch, network.patch_multiple, offsets, strict=True)
  )
