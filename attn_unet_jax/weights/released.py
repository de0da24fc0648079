"""Parameters and batch statistics of a network as a file to be passed on, mostly in 16 bits.

Kernels are stored in float16, which keeps 11 bits of each value. Vectors (biases, scales, means and
variances) are few, and stay as they are, as does an array with a value that float16 does not hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from attn_unet_jax.runtime.arrays import load_arrays, refuse_arrays, save_arrays
from attn_unet_jax.runtime.errors import UserError

_LARGEST = float(np.finfo(np.float16).max)


def round_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns parameters and batch statistics as they are after they were stored."""
  result: dict[str, Any] = jax.device_put(
    jax.tree.map(lambda x: _pack(np.asarray(x)).astype(x.dtype), dict(variables))
  )
  return result


def save_variables(path: Path, variables: Mapping[str, Any]) -> None:
  """Writes parameters and batch statistics to an `.npz` file.

  Raises:
    UserError: a value is NaN or infinite.
  """
  arrays = {name: np.asarray(values) for name, values in _list_leaves(variables).items()}
  for name, values in arrays.items():
    if not np.isfinite(values).all():
      raise UserError(f"{name} has values that are NaN or infinite; such a network is not released")
  save_arrays(path, **{name: _pack(values) for name, values in arrays.items()})


def load_variables(path: Path, like: Mapping[str, Any], way_out: str) -> dict[str, Any]:
  """Reads parameters and batch statistics.

  Args:
    path: the file.
    like: shapes and types by collection, as of `abstract_state`.
    way_out: what to do if the file is damaged, for the message.

  Raises:
    UserError: the file is damaged, or of another network; names the first difference.
    OSError: the file cannot be read for another reason.
  """
  wanted = _list_leaves(like)
  arrays = load_arrays(path, [*wanted], way_out)
  for name, leaf in wanted.items():
    if arrays[name].shape != leaf.shape or arrays[name].dtype not in (np.float16, np.float32):
      found = f"{arrays[name].dtype} {arrays[name].shape}"
      raise refuse_arrays(path, f"{name} is {found}, and its config says {leaf.shape}", way_out)
    if not np.isfinite(arrays[name]).all():
      raise refuse_arrays(path, f"{name} has values that are NaN or infinite", way_out)
  host = jax.tree_util.tree_map_with_path(
    lambda keys, leaf: arrays[_name(keys)].astype(leaf.dtype), dict(like)
  )
  # In one go: `jnp.asarray` would compile a program for each shape.
  result: dict[str, Any] = jax.device_put(host)
  return result


def _pack(values: np.ndarray) -> np.ndarray:
  # Beyond the largest one float16 has infinity.
  fits = values.ndim > 1 and float(np.abs(values).max(initial=0)) <= _LARGEST
  return values.astype(np.float16 if fits else np.float32)


def _list_leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
  return {_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(dict(tree))}


def _name(keys: Any) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator="/")
