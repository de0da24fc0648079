"""Runs commands in forks of a process that has loaded their libraries: each saves 4 s of a core.

  python -m tests.forked_commands

reads a line of JSON for each command: module, arguments, environment, folder, and the files of its
output and errors. It answers with two lines: the fork's id, then its status as `subprocess` has it.
A fork runs the module as `python -m` does, from the first line of the command's own file, and ends
as an interpreter ends.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime import huge_pages, xla

_LIBRARIES = ("train_run", "report_run", "evaluate_run", "segment_scans", "check_data")
# What Python and the libraries read as they load.
_READ_EARLY = ("JAX", "PYTHON", "GLIBC", "MALLOC", "OMP", "OPENBLAS", "MPL")
_HUGE_PAGES = "GLIBC_TUNABLES"  # as `enable_huge_pages` leaves it


class ForkedCommands:
  """The process that forks, started by the first command, and the way to ask it for one."""

  def __init__(self, root: Path) -> None:
    self._root = root
    self._environment: dict[str, str] = {}
    self._server: subprocess.Popen[str] | None = None

  def can_run(self, env: dict[str, str], standard: dict[str, str]) -> bool:
    """Whether in `env` a command's libraries load as in the environment that was first standard."""
    self._environment = self._environment or standard
    return _early(env) == _early(self._environment)

  def run(
    self, module: str, arguments: Sequence[str], env: dict[str, str], timeout: float, cwd: Path
  ) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module` in a folder, with the project's root as its path of modules."""
    with tempfile.TemporaryDirectory() as folder:
      files = [str(Path(folder, name)) for name in ("output", "errors")]
      request = {"module": module, "arguments": arguments, "env": env, "files": files}
      request["folder"] = str(cwd)
      status = self._ask(self._server or self._start(), json.dumps(request), timeout)
      output, errors = (Path(file).read_text() for file in files)
    return subprocess.CompletedProcess([module, *arguments], status, output, errors)

  def close(self) -> None:
    """Ends the process."""
    if self._server is not None:
      self._server.communicate(timeout=60)

  def _ask(self, server: subprocess.Popen[str], request: str, timeout: float) -> int:
    assert server.stdin is not None
    assert server.stdout is not None
    print(request, file=server.stdin, flush=True)
    fork, late = int(server.stdout.readline()), threading.Event()

    def stop() -> None:
      late.set()
      os.kill(fork, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    timer.start()
    status = int(server.stdout.readline())
    timer.cancel()
    if late.is_set():
      raise subprocess.TimeoutExpired(request, timeout)
    return status

  def _start(self) -> subprocess.Popen[str]:
    self._server = subprocess.Popen(
      [sys.executable, "-m", "tests.forked_commands"],
      cwd=self._root,
      env=self._environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    return self._server


def _early(env: dict[str, str]) -> dict[str, str]:
  return {name: value for name, value in env.items() if name.startswith(_READ_EARLY)}


def main() -> None:
  """Loads the libraries, forks for each request, and in a fork runs the command."""
  huge_pages.enable_huge_pages()  # a command would restart itself for them, and load all anew
  xla.silence_slow_alarms()
  for name in _LIBRARIES:
    importlib.import_module(f"attn_unet_jax.workflows.{name}")
  gc.collect()
  gc.freeze()
  with warnings.catch_warnings():
    # Of other threads: those of linear algebra begin anew in a fork, and JAX has none yet.
    warnings.simplefilter("ignore", DeprecationWarning)
    request = _fork_for_each_request()
  _become(request)
  runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _fork_for_each_request() -> dict[str, Any]:
  """Returns the request in a fork, and never where requests come from."""
  for line in sys.stdin:
    if not (fork := os.fork()):
      request: dict[str, Any] = json.loads(line)
      return request
    print(fork, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
  sys.exit()


def _become(request: dict[str, Any]) -> None:
  """Gives a fork the streams, the environment and the arguments of its command."""
  large = {_HUGE_PAGES: os.environ[_HUGE_PAGES]} if _HUGE_PAGES in os.environ else {}
  os.environ.clear()
  os.environ.update(request["env"] | large)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  for number, file in enumerate(request["files"], 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
  sys.argv[1:] = request["arguments"]
  os.chdir(request["folder"])


if __name__ == "__main__":
  main()
