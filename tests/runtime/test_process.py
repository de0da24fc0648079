"""Checks how a command ends: its status, its help, and a signal at an awkward moment."""

import ast
import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from absl import flags

from attn_unet_jax.runtime import process, signals
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted, obey_first_signal
from tests.conftest import ROOT, run_command

STOPPED_IN_A_CALLBACK = """
  import signal, time, weakref
  from attn_unet_jax.runtime import process as command

  # A job that a script starts in the background ignores SIGINT. This test is not about that.
  signal.signal(signal.SIGINT, signal.default_int_handler)

  class Held: pass

  def main():
    held = Held()
    reference = weakref.ref(held, lambda _: signal.raise_signal({number}))
    del held  # Python drops what a weak reference's callback raises
    time.sleep(10)

  command.run_command(main)
"""


@pytest.mark.parametrize(("number", "status"), [(15, 143), (2, 130)])
def test_a_signal_that_python_drops_is_sent_again(number, status):
  code = textwrap.dedent(STOPPED_IN_A_CALLBACK).format(number=number)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
  ("error", "status"),
  [
    (UserError("wrong"), 2),
    (PermissionError(errno.EACCES, "no", "a.json"), 2),
    (OSError(errno.ENOSPC, "full"), 2),
    (ConnectionResetError(errno.ECONNRESET, "gone"), 1),
    (BrokenPipeError(errno.EPIPE, "closed"), 141),
    (Interrupted(15), 143),
    (KeyboardInterrupt(), 130),
    (ZeroDivisionError(), 1),
  ],
)
def test_the_status_that_other_hosts_read_is_the_one_it_ends_with(monkeypatch, error, status):
  """Other hosts read it before this process has ended."""
  assert signals.exit_status(error) == status
  for name in ("signal.signal", "xla.enable_compilation_cache", "os.dup2"):
    monkeypatch.setattr(f"attn_unet_jax.runtime.process.{name}", lambda *_: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards

  def main():
    raise error

  with pytest.raises(type(error) if status == 1 else SystemExit) as ended:
    process._run_main(main)
  assert status == 1 or ended.value.code == status


def test_no_backslash_of_a_docstring_has_joined_two_lines():
  """`--help` shows the docstrings of commands."""
  for folder in ("attn_unet_jax", "tfds_pancreas", "experiments", "benchmarks", "tests"):
    for path in (ROOT / folder).rglob("*.py"):
      text = path.read_text()
      shown, written = ast.get_docstring(ast.parse(text)) or "", [*text.split('"""'), ""][1]
      assert shown.count("\\\n") == written.count("\\\n"), path


@pytest.mark.parametrize("raised", [AssertionError(), RuntimeError("Unable to initialize 'cuda'")])
def test_a_platform_that_is_not_there_is_the_users_to_mend(monkeypatch, capsys, raised):
  """JAX_PLATFORMS=cuda, left in a job's script; JAX's own word for it is a bare assertion."""

  def no_devices():
    raise raised

  for name in ("signal.signal", "xla.enable_compilation_cache"):
    monkeypatch.setattr(f"attn_unet_jax.runtime.process.{name}", lambda *_: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  monkeypatch.setattr("jax.devices", no_devices)
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  with pytest.raises(SystemExit) as ended:
    process._run_main(no_devices)
  assert ended.value.code == 2
  said = capsys.readouterr().err
  assert said.startswith("error: JAX_PLATFORMS=cuda: there is no such device here, or ")
  assert said.count("\n") == 1
  monkeypatch.setattr("jax.devices", list)  # the fault is another one
  with pytest.raises(type(raised)):
    process._run_main(no_devices)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense", "cuda,cpu"])
def test_a_command_without_its_device_ends_with_one_line(platform):
  flags = ("--config=tests/small.py",)
  done = run_command("attn_unet_jax.info", *flags, env={"JAX_PLATFORMS": platform})
  if platform == "cuda,cpu":  # the second is there
    assert done.returncode == 0
  else:
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: JAX_PLATFORMS={platform}: there is no such device here")


def test_what_a_terminal_would_obey_is_in_no_error_and_no_log(capsys):
  with pytest.raises(SystemExit):
    process._exit_with_error("a\x1b[2Jb: not found")
  assert capsys.readouterr().err == "error: a\\x1b[2Jb: not found\n"
  record = logging.makeLogRecord({"msg": "%s: %d\x9b", "args": ("a\x1b[2J", 3), "pathname": "x"})
  assert process._prepare_log_record(record)
  assert record.getMessage() == "a\\x1b[2J: 3\\x9b"


def test_a_switch_that_is_given_a_value_says_how_it_is_written():
  """By absl's own error, whose words may change."""
  values = flags.FlagValues()
  flags.DEFINE_bool("json", False, "A switch.", flag_values=values)
  with pytest.raises(flags.Error) as refused:
    values(["predict", "--json=a.json"])
  said = process._explain_flag_error(str(refused.value), "")
  assert said == "--json=a.json: takes no value but true and false; write --json alone"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_python_drops_is_sent_again_and_obeyed(monkeypatch, number):
  """Python drops what a finaliser raises, and a run obeys its first signal alone."""

  class Finalised:
    def __del__(self):
      os.kill(os.getpid(), number)
      time.sleep(0.01)

  monkeypatch.setattr(sys, "unraisablehook", process._resend_dropped_signal)

  def finalise_and_wait():
    with obey_first_signal():
      Finalised()  # gone at once, since nothing holds it
      time.sleep(5)

  with pytest.raises(Interrupted) as stopped:
    finalise_and_wait()
  assert stopped.value.number == number
