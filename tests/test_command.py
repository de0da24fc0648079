"""How a command ends when a signal comes at an awkward moment."""

import subprocess
import sys
import textwrap

import pytest

STOPPED_IN_A_CALLBACK = """
  import signal, time, weakref
  from attn_unet_jax import command

  # Ignored in a job that a script starts in the background; nothing is to be shown of that here.
  signal.signal(signal.SIGINT, signal.default_int_handler)

  class Held: pass

  def main():
    held = Held()
    reference = weakref.ref(held, lambda _: signal.raise_signal({number}))
    del held  # Python drops what a weak reference's callback raises
    time.sleep(10)

  command.run(main)
"""


@pytest.mark.parametrize(("number", "status"), [(15, 143), (2, 130)])
def test_a_signal_that_python_drops_is_given_again(number, status):
  code = textwrap.dedent(STOPPED_IN_A_CALLBACK).format(number=number)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stderr) == (status, "")
