"""What test files share: a small phantom data set, a small config, a way to run commands."""

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.config.schema import RunConfig, flatten
from tests.configs import small_config
from tests.forked_commands import ForkedCommands

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
# What commands load has a TensorFlow that ends the program.
NO_TENSORFLOW = ROOT / "tests" / "no_tensorflow"
# A quarter of the time to compile: LLVM does not optimise, and no fusion is made by way of MLIR.
# What XLA does before is the same but for small simplifications: tests of compiled text hold too.
# Fusions by way of MLIR are what users have; JAX 0.11 has no others, and no flag for them.
BY_MLIR = {} if jax.__version_info__ >= (0, 11) else {"xla_cpu_use_fusion_emitters": True}
_PLAIN = " --xla_cpu_use_fusion_emitters=false" if BY_MLIR else ""
# The layout is the commands' own: what one of them has compiled is found again.
_SAME = f"{_PLAIN} --xla_gpu_force_conv_nhwc=true"
QUICK = f"--xla_backend_optimization_level=0{_SAME}"
# Where more is computed than compiled.
HALF = f"--xla_backend_optimization_level=1{_SAME}"

_FORKED = ForkedCommands(ROOT)

# Begun first, lest one worker be left with such a file when the others have nothing to do.
_LONGEST = (
  "tests/test_systems.py",
  "tests/test_commands.py",
  "tests/runtime/test_hosts.py",
  "tests/training/test_compile.py",
  "tests/training/test_inputs.py",
  "tests/training/test_loop.py",
  "tests/weights/test_from_pytorch.py",
  "tests/workflows/stages/test_commands.py",
  "tests/test_kills.py",
  "tests/training/test_lowering.py",
  "tests/training/test_step.py",
  "tests/models/test_precision.py",
  "tests/test_refusals.py",
  "tests/workflows/test_earlier_run.py",
  "tests/test_commands_fuzz.py",
)


def pytest_configure() -> None:
  """Of the tests and the commands that they start; before JAX looks at its devices."""
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
  # As commands set it. JAX has set 1 as it was imported here: on a busy machine XLA's alarms about
  # slow compilations would be in the output of the commands.
  os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  # JAX traces programs into millions of small objects. To look through all of them for cycles after
  # every few hundred new ones takes an eighth of the time.
  gc.set_threshold(200_000, 50, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """The order of files, for `--dist loadfile --no-loadscope-reorder`."""
  place = {name: number for number, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


def flags_of(config: RunConfig) -> list[str]:
  """The flags that turn the default config into this one."""
  standard = flatten(RunConfig())
  return [
    f"--config.{key}={value}"
    for key, value in flatten(config).items()
    if value != standard.get(key)
  ]


def host_devices(count: int, compiled: str = QUICK) -> dict[str, str]:
  """An environment in which JAX sees the CPU as so many devices; by what flags it compiles."""
  flags = f"{compiled} --xla_force_host_platform_device_count={count}".strip()
  return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run_flags(data_dir: Path, workdir: Path, **changes: Any) -> list[str]:
  """Those of a small run; changes such as `train__epochs=1`."""
  keys = {key.replace("__", "."): value for key, value in changes.items()}
  config = small_config(**{"data.dir": str(data_dir), **keys})
  return ["--config=tests/small.py", f"--workdir={workdir}", *flags_of(config)]


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
  """One compilation cache for all workers and for the commands that tests start."""
  base = tmp_path_factory.getbasetemp()
  folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "xla"
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  yield
  _FORKED.close()


@pytest.fixture
def config() -> RunConfig:
  return small_config()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A data_dir with phantom_ct/tiny in it."""
  from tfds_pancreas.build_dataset import build_dataset

  folder = tmp_path_factory.mktemp("phantoms")
  build_dataset("phantom_ct/tiny", folder)
  return folder


def draw(*shape: int, seed: int = 0) -> jax.Array:
  """Normally distributed; float64 where that is enabled."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_same(a: Any, b: Any) -> None:
  """The same bits, leaf by leaf."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def flip_a_bit(path: Path) -> None:
  """In the middle of a file."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
  """Makes the system refuse a file to who reads it, even to root; or fail by another error."""
  refused: dict[Path, int] = {}
  opened = Path.open

  def refusing(path: Path, *arguments: Any, **keywords: Any) -> Any:
    if path in refused:
      raise OSError(refused[path], os.strerror(refused[path]), str(path))
    return opened(path, *arguments, **keywords)

  def refuse(path: Path, number: int = errno.EACCES) -> None:
    refused[path] = number

  monkeypatch.setattr(Path, "open", refusing)
  return refuse


def run_command(
  module: str,
  *arguments: str,
  env: dict[str, str] | None = None,
  timeout: float = 300,
  cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
  """Runs `python -m module` as a user does, from the project's root unless `cwd` names a folder.

  In a fork, see tests/forked_commands.py, unless `env` says what is read as Python or JAX loads.
  Whether forked or not, it ends where it imports TensorFlow.
  """
  path = os.pathsep.join(filter(None, (str(NO_TENSORFLOW), os.environ.get("PYTHONPATH"))))
  standard = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
  whole = standard | (env or {})
  if module.startswith("attn_unet_jax.") and _FORKED.can_run(whole, standard):
    return _FORKED.run(module, arguments, whole, timeout, cwd)
  return subprocess.run(
    [sys.executable, "-m", module, *arguments],
    cwd=cwd,
    env=whole,
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def stop_when(process: subprocess.Popen[str], path: Path, number: int = signal.SIGTERM) -> None:
  """Sends a signal once a file exists."""
  deadline = time.monotonic() + 240
  while not path.exists():
    assert process.poll() is None, "the command ended before it made the file"
    assert time.monotonic() < deadline, f"{path} never came"
    time.sleep(0.05)
  process.send_signal(number)
