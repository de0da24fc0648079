"""Sets how XLA compiles: what it caches, in which layout it convolves, and whether bits repeat."""

import hashlib
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError

# JAX's warnings about a compiled program that it could not read or write begin so.
_BROKEN_ENTRY = tuple(
  f"Error {what} persistent compilation cache entry" for what in ("reading", "writing")
)
# No atomic additions, whose order varies, and no kernels that are chosen by measuring their time.
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_CHANNELS_LAST, _ANY_LAYOUT = "--xla_gpu_force_conv_nhwc=true", "--xla_gpu_force_conv_n"


def silence_slow_alarms() -> None:
  """Keeps XLA from reporting, in a box of asterisks, that a compilation takes long.

  To be called before JAX is imported. XLA logs these alarms as errors, and its errors reach Python
  as exceptions anyway. TF_CPP_MIN_LOG_LEVEL=1 shows all of its log.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def enable_compilation_cache() -> None:
  """Caches compiled programs in a folder of the user's, so that a second start compiles nothing.

  The folder is `attn_unet_jax` in $XDG_CACHE_HOME (`~/.cache`), with a subfolder for each kind of
  processor. JAX_COMPILATION_CACHE_DIR names another one. If the folder cannot be written, nothing
  is cached. Every program is cached, unless JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS leaves out
  those that compile fast. In either folder a program that was written only in part causes one
  warning, and is then written again.
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
    return  # JAX would warn of it for every program
  _set_jax_option("jax_compilation_cache_dir", str(folder))
  # JAX leaves out what compiles in under a second. A command runs many small programs, which take
  # seconds together.
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    _set_jax_option("jax_persistent_cache_min_compile_time_secs", 0.0)


def _set_jax_option(key: str, value: str | float) -> None:
  """Sets an option of JAX for this process and for those that it starts."""
  os.environ[key.upper()] = str(value)
  # Once imported, JAX does not read the environment again. Before, importing it here would cost
  # commands that never need it a second.
  if jax := sys.modules.get("jax"):
    jax.config.update(key, value)


def _remove_broken_entries() -> None:
  """Makes JAX write a compiled program again that it could not read, or not write in full.

  JAX writes in place and never overwrites a file. What a kill or a full disk has left would cause a
  warning, and a compilation, at every start.
  """
  show = warnings.showwarning

  def remove_and_show(message: Warning | str, *where: Any, **how: Any) -> None:
    """Removes the entry that a warning is about, and shows the warning."""
    if str(message).startswith(_BROKEN_ENTRY):
      _remove_broken_entry()
    show(message, *where, **how)

  warnings.showwarning = remove_and_show


def _remove_broken_entry() -> None:
  """Removes the file of the compiled program that JAX is just warning of."""
  # The warning does not name the file. But JAX warns while it handles the exception, in a function
  # with the key in a variable. If another version of JAX has no such variable, no file is removed.
  error, folder = sys.exception(), sys.modules["jax"].config.jax_compilation_cache_dir
  if error and error.__traceback__ and folder:
    key = error.__traceback__.tb_frame.f_locals.get("cache_key")
    with suppress(OSError):
      Path(folder, f"{key}-cache").unlink()


def explain_missing_backend() -> str:
  """Returns why JAX has no device to compute on, and the way out; '' if it has one."""
  asked = os.environ.get("JAX_PLATFORMS", "")
  if "jax" not in sys.modules or not asked:
    return ""
  try:
    sys.modules["jax"].devices()
  except (RuntimeError, AssertionError):
    return (
      f"JAX_PLATFORMS={asked}: there is no such device here, or JAX was installed without support "
      "for it; unset JAX_PLATFORMS to use what there is, or set it to cpu"
    )
  return ""


def describe_devices() -> str:
  """Describes what the program computes on: `cpu, 2 cores` or `8 x NVIDIA H200 (gpu)`.

  Raises:
    RuntimeError, AssertionError: JAX has no device; see `explain_missing_backend`.
  """
  import jax  # whose import costs commands that never need it a second

  devices = jax.devices()
  number = f"{len(devices)} x " if len(devices) > 1 else ""
  if devices[0].platform == "cpu":
    return f"{number}cpu, {count_usable_cores()} cores"
  return f"{number}{devices[0].device_kind} ({devices[0].platform})"


def make_deterministic() -> None:
  """Makes a GPU repeat its bits, as a CPU and a TPU do anyway.

  To be called before JAX first looks at its devices, since XLA reads its flags then.

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
  """Makes a GPU convolve in the layout that arrays have, with the channels last.

  To be called before JAX first looks at its devices. A layout that XLA_FLAGS already asks for
  stays, and so does a file that it names.
  """
  # XLA puts the channels of 3-D convolutions first, and cuDNN's kernels put them last again, with a
  # copy each time. The copies took a fifth of the training step on an H200.
  if _ANY_LAYOUT not in _xla_flags() and not _is_flags_file():
    os.environ["XLA_FLAGS"] = f"{_xla_flags()} {_CHANNELS_LAST}".strip()


def _xla_flags() -> str:
  return os.environ.get("XLA_FLAGS", "").strip()


def _is_flags_file() -> bool:
  """Returns whether XLA reads its flags from a file: XLA_FLAGS does not begin like a flag."""
  return bool(_xla_flags()) and not _xla_flags().startswith("--")


def _processor_digest() -> str:
  """Returns a short name of this processor's instruction set."""
  # Home folders are shared between machines, and a program compiled for another processor may end
  # in an illegal instruction.
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  text = f"{platform.machine()} {platform.processor()} {features}"
  return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
