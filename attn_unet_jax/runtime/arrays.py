"""Arrays in `.npz` files: written at once, and read without unpickling anything."""

import io
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.runtime.memory import require_memory


def save_arrays(path: Path, **arrays: Any) -> None:
  """Writes arrays to an `.npz` file, atomically."""
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)
  with atomic_write(path) as beside:
    beside.write_bytes(content.getvalue())


def load_arrays(path: Path, names: Collection[str], way_out: str) -> dict[str, np.ndarray]:
  """Reads arrays of these names from an `.npz` file, without unpickling anything.

  Args:
    path: the file.
    names: of all its arrays.
    way_out: what to do if it is damaged, for the message.

  Raises:
    UserError: the file is missing or damaged, or holds other arrays.
    OSError: the file cannot be read for another reason, such as permissions or a failing disk.
  """
  try:
    content = path.read_bytes()
    _require_unpacked_size(path, content, way_out)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      if set(file.files) != set(names):
        raise ValueError(_tell_names(file.files, names))
      return {name: file[name] for name in names}
  except Exception as error:  # zipfile, zlib and NumPy's header each raise their own
    if isinstance(error, UserError) or (
      isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    ):
      raise  # such an error says nothing about the content: the advice would be wrong
    raise refuse_arrays(path, error, way_out) from None


def refuse_arrays(path: Path, why: object, way_out: str) -> UserError:
  """Returns the error that says why an `.npz` file cannot be used, and the way out."""
  return UserError(f"{path}: not readable ({why}); {way_out}")


def _require_unpacked_size(path: Path, content: bytes, way_out: str) -> None:
  """Refuses a file whose arrays would not fit into memory once they are unpacked."""
  with zipfile.ZipFile(io.BytesIO(content)) as packed:
    unpacked = sum(member.file_size for member in packed.infolist())
  require_memory(unpacked, f"{path}: its arrays", way_out)


def _tell_names(found: Collection[str], wanted: Collection[str]) -> str:
  """Says how the arrays of a file differ from those that are wanted; of many, the first ones."""
  if len(found) + len(wanted) <= 40:
    return f"it holds {', '.join(found)}, not {', '.join(wanted)}"
  lacks = [f"lacks {name}" for name in wanted if name not in found]
  has = [f"holds {name} beside" for name in found if name not in wanted]
  return f"it {' and '.join([*lacks[:1], *has[:1]])}"
