"""Checks what is cached for the next start, and flags that must be set before JAX starts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.errors import UserError
from tests.conftest import ROOT, run_command

COUNT_PROGRAM = """
import json, os, sys
import jax, jax.numpy as jnp
from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.errors import UserError
found = {"/jax/compilation_cache/cache_misses": 0, "/jax/compilation_cache/cache_hits": 0}
def note(event, **_):
  found[event] = found.get(event, 0) + 1
jax.monitoring.register_event_listener(note)
xla.enable_compilation_cache()
x = jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))) + 1
jax.block_until_ready(x)
print(json.dumps([jax.config.jax_compilation_cache_dir, *list(found.values())[:2]]))
"""


def _run_count(*python, **env):
  """Runs `COUNT_PROGRAM` with other variables of the environment."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
  return subprocess.run(
    [*python, "-c", COUNT_PROGRAM],
    cwd=ROOT,
    env={**kept, "JAX_PLATFORMS": "cpu", **env},
    capture_output=True,
    text=True,
    timeout=300,
  )


def _count_programs(**env):
  """Returns the folder in use, and how many programs were compiled and were found in it."""
  done = _run_count(sys.executable, "-W", "error", **env)
  assert (done.returncode, done.stderr) == (0, "")
  return json.loads(done.stdout)


def test_a_second_start_compiles_nothing(tmp_path):
  folder, compiled, found = _count_programs(XDG_CACHE_HOME=str(tmp_path))
  assert folder.startswith(f"{tmp_path}/attn_unet_jax/xla-")
  assert compiled >= 2
  assert found == 0
  assert _count_programs(XDG_CACHE_HOME=str(tmp_path)) == [folder, 0, compiled]


def _read_warnings(done):
  assert done.returncode == 0, done.stderr
  return re.findall(r"Error \w+ persistent compilation cache entry", done.stderr)


def test_what_a_kill_left_of_a_program_is_written_again(tmp_path):
  env = {"XDG_CACHE_HOME": str(tmp_path)}
  folder, compiled, _ = _count_programs(**env)
  entry = max(Path(folder).glob("*-cache"), key=lambda path: path.stat().st_size)
  whole = entry.read_bytes()
  entry.write_bytes(whole[: len(whole) // 2])
  done = _run_count(sys.executable, **env)
  assert _read_warnings(done) == ["Error reading persistent compilation cache entry"]
  assert json.loads(done.stdout) == [folder, 1, compiled - 1]
  assert _count_programs(**env) == [folder, 0, compiled]


def test_what_a_full_disk_left_of_a_program_is_removed(tmp_path):
  """Also from a folder that the user has given to JAX."""
  env = {
    "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  done = _run_count("bash", "-c", 'ulimit -f 0 && exec "$0" "$@"', sys.executable, **env)
  assert "Error writing persistent compilation cache entry" in _read_warnings(done)
  assert list(tmp_path.iterdir()) == []


def test_what_compiles_fast_is_left_out_if_jax_is_set_so(tmp_path):
  env = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000", "XDG_CACHE_HOME": str(tmp_path)}
  folder = _count_programs(**env)[0]
  assert folder.startswith(str(tmp_path))
  assert not [path for path in Path(folder).iterdir() if path.name.startswith("jit")]


def test_a_command_keeps_what_it_compiles(tmp_path, monkeypatch):
  """The folder is made before the command looks at its input, which does not exist here."""
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  flags = ("--config=tests/small.py", "--config.data.folder=nothing", f"--workdir={tmp_path}/run")
  done = run_command("attn_unet_jax.main", *flags, env={"XDG_CACHE_HOME": str(tmp_path)})
  assert (done.returncode, "nothing" in done.stderr) == (2, True), done.stderr
  (folder,) = (tmp_path / "attn_unet_jax").iterdir()
  assert folder.name.startswith("xla-")


def test_the_folder_that_jax_was_given_is_left_alone(tmp_path):
  given = str(tmp_path / "given")
  env = {"JAX_COMPILATION_CACHE_DIR": given, "XDG_CACHE_HOME": str(tmp_path / "own")}
  assert _count_programs(**env)[0] == given
  assert not (tmp_path / "own").exists()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path):
  (tmp_path / "file").write_text("")
  folder, compiled, found = _count_programs(XDG_CACHE_HOME=str(tmp_path / "file"))
  assert (folder, compiled, found) == (None, 0, 0)


_CHANNELS_LAST = " --xla_gpu_force_conv_nhwc=true"


@pytest.mark.parametrize("value", ["true", "false"])
def test_determinism_is_set_before_the_devices_are_opened(value):
  """XLA reads its flags once, with the first device; an unknown one would end the program."""
  code = (
    "import os\n"
    "from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config\n"
    "from attn_unet_jax.runtime import process\n"
    "define_config()\n"
    "def main():\n"
    "  CONFIG_FLAGS.read(data=False)\n"
    "  from jax._src import xla_bridge\n"
    "  assert not xla_bridge.backends_are_initialized()\n"
    "  import jax\n  jax.devices()\n  print(os.environ['XLA_FLAGS'])\n"
    "process.run_command(main, CONFIG_FLAGS)"
  )
  flags = ["--config=tests/small.py", f"--config.deterministic={value}"]
  done = subprocess.run(
    [sys.executable, "-c", code, *flags],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "--xla_cpu_enable_fast_math=false", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  asked = " --xla_gpu_deterministic_ops=true" if value == "true" else ""
  assert done.stdout == f"--xla_cpu_enable_fast_math=false{_CHANNELS_LAST}{asked}\n"


@pytest.mark.parametrize(
  ("given", "added"),
  [
    ("", _CHANNELS_LAST.strip()),
    ("--xla_gpu_force_conv_nchw=true", ""),
    ("--a=1", _CHANNELS_LAST),
    ("flags.txt", ""),
  ],
)
def test_channels_stay_last_unless_the_user_says_otherwise(monkeypatch, given, added):
  monkeypatch.setenv("XLA_FLAGS", given)
  xla.keep_channels_last()
  assert os.environ["XLA_FLAGS"] == given + added


def test_a_file_of_flags_is_not_made_deterministic(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "flags.txt")
  with pytest.raises(
    UserError, match=r"XLA_FLAGS=flags\.txt: names a file.*deterministic_ops=true"
  ):
    xla.make_deterministic()
  assert os.environ["XLA_FLAGS"] == "flags.txt"


def test_xlas_alarms_are_silent_unless_its_log_is_asked_for(monkeypatch):
  monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
  xla.silence_slow_alarms()
  assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
  xla.silence_slow_alarms()
  assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_the_device_is_described(monkeypatch):
  device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
  monkeypatch.setattr("jax.devices", lambda: 8 * [device])
  assert xla.describe_devices() == "8 x NVIDIA H200 (gpu)"
  monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(platform="cpu")])
  assert re.fullmatch(r"cpu, \d+ cores", xla.describe_devices())
