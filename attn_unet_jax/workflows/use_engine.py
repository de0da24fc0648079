"""Chooses what computes the networks of a run: JAX, or OpenVINO where that is faster."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from attn_unet_jax import __version__
from attn_unet_jax.graphs.values import UnsupportedProgramError
from attn_unet_jax.inference.onnx_window import write_onnx_window
from attn_unet_jax.inference.openvino_engine import EXTRA, OpenVinoEngine, Shape, import_openvino
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runs.release import is_release
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.workflows.export_network import widen_network
from attn_unet_jax.workflows.load_run import LoadedNetwork, LoadedRun, digest_checkpoint
from attn_unet_jax.workflows.options import EngineOptions

FOLDER = "engine"
# To be raised with every change of what `graphs` writes for a network.
_FORMAT = 1
_NEEDED_BY = "--engine=openvino"


def use_engine(trained: LoadedRun, options: EngineOptions) -> LoadedRun:
  """Returns the run, whose networks are computed by the engine of the options.

  With `auto` OpenVINO computes them if it is installed, no accelerator is present, and it says what
  JAX says: where a network is in bfloat16, or the run deterministic, JAX stays. It stays too where
  OpenVINO fails, whatever with, before the first scan.

  Raises:
    UserError: the engine is not installed, or it cannot compute a network in this precision.
  """
  if options.engine == "jax" or (options.engine == "auto" and not _is_better(trained)):
    return _stay_with_jax(trained, options)
  try:
    for network in trained.networks:
      _set_engine(network, options)
    # Behind the dash stands the build.
    version = import_openvino(_NEEDED_BY).__version__.partition("-")[0]
  except Exception as error:  # a network of someone else, or a broken installation, raises any
    for network in trained.networks:
      # Those before the one that failed have OpenVINO by now.
      network.system.use_engine(None)
    return _go_on_without(error, trained, options)
  print_line(f"engine: OpenVINO {version}, {options.precision}")
  return dataclasses.replace(trained, engine=f"openvino {version}, {options.precision}")


def _go_on_without(error: Exception, trained: LoadedRun, options: EngineOptions) -> LoadedRun:
  """Returns the run for JAX, and says why; raises UserError if OpenVINO was asked for."""
  is_asked = options.engine == "openvino"
  if isinstance(error, UserError) and (is_asked or options.precision != "float32"):
    raise error
  said = format_error(error)
  if is_asked:
    raise UserError(f"{_NEEDED_BY}: {said}; use --engine=jax") from error
  print_line(f"computed by JAX, since OpenVINO cannot: {said}")
  return _stay_with_jax(trained, options)


def _is_better(trained: LoadedRun) -> bool:
  """Returns whether OpenVINO is here, and faster, and says the same."""
  configs = [one.found.config for one in trained.networks]
  return (
    bool(configs)
    # Looked for and not imported, which takes time where JAX stays.
    and all(importlib.util.find_spec(name) for name in ("openvino", "onnx"))
    and jax.default_backend() == "cpu"
    and not any(one.deterministic or one.model.dtype != "float32" for one in configs)
  )


def _stay_with_jax(trained: LoadedRun, options: EngineOptions) -> LoadedRun:
  if options.precision != "float32":
    raise UserError(
      f"--precision={options.precision}: only OpenVINO computes a run in it "
      f"(--engine=openvino; from a clone, pip install -e '.[{EXTRA}]'); leave the flag out"
    )
  return trained


def _set_engine(network: LoadedNetwork, options: EngineOptions) -> None:
  config = network.found.config
  write = functools.partial(_load_or_write, network)
  uses_statistics = config.data.normalisation == "zscore"
  engine = OpenVinoEngine(write, options.precision, uses_statistics=uses_statistics)
  # Now, and not when the first scan is read: what fails is known from one window.
  if config.inference.window == "patch":
    engine.prepare(config.window)
  else:  # whose windows depend on the scan
    write(config.window)
  network.system.use_engine(engine)


def _load_or_write(network: LoadedNetwork, window: Shape) -> bytes:
  """Returns the network for a window as ONNX; that for the run's own window is kept."""
  config = network.found.config
  # The code of a network from outside the package changes without its key.
  # Windows of other sizes are as many as scans, and would fill the folder.
  if window != config.window or ":" in config.model.name:
    return _write(network, window)
  known = (_FORMAT, __version__, digest_checkpoint(network.found), window)
  key = _digest(repr(known).encode())
  folders = list(_list_folders(network.workdir))
  for folder in folders:
    if (content := _read_kept(folder, key)) is not None:
      return content
  content = _write(network, window)
  for folder in folders:
    with contextlib.suppress(OSError):
      _keep(folder, key, content, alone=folder.parent == network.workdir)
      break
  return content


def _list_folders(workdir: Path) -> Iterator[Path]:
  """Yields where written networks are kept: the run's folder, but of a release; the user's."""
  if os.access(workdir, os.W_OK) and not is_release(workdir):
    yield workdir / FOLDER
  with contextlib.suppress(RuntimeError):  # a user without a home
    # An empty variable counts as none by the specification of these folders.
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield base / "attn_unet_jax" / FOLDER


def _read_kept(folder: Path, key: str) -> bytes | None:
  """Returns a network that was kept; None if there is none, or its file is damaged."""
  for path in folder.glob(f"{key}-*.onnx"):
    with contextlib.suppress(OSError):
      content = path.read_bytes()
      if path.name == _name_kept(key, content):
        return content
  return None


def _keep(folder: Path, key: str, content: bytes, *, alone: bool) -> None:
  """Keeps a written network; `alone`: in the place of those of earlier checkpoints."""
  folder.mkdir(parents=True, exist_ok=True)
  name = _name_kept(key, content)
  with atomic_write(folder / name) as temporary:
    temporary.write_bytes(content)
  # The user's folder has networks of other runs too.
  for path in folder.glob("*.onnx") if alone else ():
    if path.name != name:
      path.unlink()


def _name_kept(key: str, content: bytes) -> str:
  return f"{key}-{_digest(content)}.onnx"


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:32]


def _write(network: LoadedNetwork, window: Shape) -> bytes:
  found = network.found
  system = SlidingWindow(found.config, widen_network(found.module)).use(found.variables)
  try:
    return write_onnx_window(
      [system],
      window,
      uses_statistics=found.config.data.normalisation == "zscore",
      extra=EXTRA,
      needed_by=_NEEDED_BY,
    )
  except UnsupportedProgramError as error:
    raise UnsupportedProgramError(f"{found.config.model.name} ({error})") from None
