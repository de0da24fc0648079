"""How XLA compiles for this program: what it keeps, in which layout, and whether bits repeat."""

import hashlib
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError

# How JAX's warnings of a compiled program begin that could not be read or written.
_BROKEN_ENTRY = tuple(
  f"Error {what} persistent compilation cache entry" for what in ("reading", "writing")
)
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"  # no atomics, no kernels chosen by a stopwatch
_CHANNELS_LAST, _ANY_LAYOUT = "--xla_gpu_force_conv_nhwc=true", "--xla_gpu_force_conv_n"


def enable_compilation_cache() -> None:
  """Keeps compiled programs in a folder of the user's, so that a second start compiles nothing.

  The folder is `attn_unet_jax` in $XDG_CACHE_HOME (`~/.cache`), apart for each kind of processor.
  JAX_COMPILATION_CACHE_DIR names another; where nothing can be written, nothing is kept. Every
  program is, unless JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS leaves out what compiles fast.
  In either folder, what was not written whole is warned of once, and written anew.
  """
  _remove_broken_entries()
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  try:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "attn_unet_jax" / f"xla-{_processor_digest()}"
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: a user without a home
    return
  if not os.access(folder, os.W_OK):
    return
  _set_jax_option("jax_compilation_cache_dir", str(folder))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    _set_jax_option("jax_persistent_cache_min_compile_time_secs", 0.0)


def _set_jax_option(key: str, value: str | float) -> None:
  """Sets a key of JAX's, for the processes that this one starts too."""
  os.environ[key.upper()] = str(value)
  if jax := sys.modules.get("jax"):  # it has read the environment already
    jax.config.update(key, value)


def _remove_broken_entries() -> None:
  """Makes JAX write a compiled program again that it could not read, or write whole.

  JAX writes in place, and never over a file that is there: what a kill or a full disk has left
  would be warned of, and compiled, at every start.
  """
  show = warnings.showwarning

  def remove_and_show(message: Warning | str, *where: Any, **how: Any) -> None:
    if str(message).startswith(_BROKEN_ENTRY):
      _remove_broken_entry()
    show(message, *where, **how)

  warnings.showwarning = remove_and_show


def _remove_broken_entry() -> None:
  """Removes the file of the compiled program that a warning is being given of.

  JAX tells which it is in this way only: it warns while it handles the exception, in a function
  that was given the key. One that no longer does so has its files left as they are.
  """
  error, folder = sys.exception(), sys.modules["jax"].config.jax_compilation_cache_dir
  if error and error.__traceback__ and folder:
    key = error.__traceback__.tb_frame.f_locals.get("cache_key")
    with suppress(OSError):
      Path(folder, f"{key}-cache").unlink()


def make_deterministic() -> None:
  """Makes a GPU repeat its bits; to be called before JAX first looks at its devices.

  A CPU and a TPU do so anyway.

  Raises:
    UserError: XLA_FLAGS names a file, which is not changed.
  """
  if _DETERMINISTIC in _xla_flags():
    return
  if _is_flags_file():
    raise UserError(
      f"XLA_FLAGS={_xla_flags()}: names a file, which config.deterministic does not change; "
      f"give the flags themselves and add {_DETERMINISTIC}"
    )
  os.environ["XLA_FLAGS"] = f"{_xla_flags()} {_DETERMINISTIC}".strip()


def keep_channels_last() -> None:
  """Has a GPU convolve in the layout that arrays have; called before JAX first looks at devices.

  Of 3-D convolutions XLA puts the channels first, and cuDNN's kernels put them last again, each in
  a copy of its own: a fifth of the training step on an H200. A layout that XLA_FLAGS already asks
  for stays, and so does a file that it names.
  """
  if _ANY_LAYOUT not in _xla_flags() and not _is_flags_file():
    os.environ["XLA_FLAGS"] = f"{_xla_flags()} {_CHANNELS_LAST}".strip()


def _xla_flags() -> str:
  return os.environ.get("XLA_FLAGS", "").strip()


def _is_flags_file() -> bool:
  """Whether XLA reads its flags from a file: where they do not begin like a flag."""
  return bool(_xla_flags()) and not _xla_flags().startswith("--")


def _processor_digest() -> str:
  """A short name of what this processor can do: homes are shared between machines that differ."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  text = f"{platform.machine()} {platform.processor()} {features}"
  return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
