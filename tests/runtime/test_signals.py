import hashlib
import os
import signal
import threading
import time

import pytest

from attn_unet_jax.runtime import signals
from attn_unet_jax.runtime.signals import StopRequest, acknowledge_signals, defer_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_work_that_nothing_breaks_off_is_acknowledged_at_once(monkeypatch, number):
  """As in a compilation: Python's own handler runs only when the call into C returns."""
  said, stop = [], StopRequest()
  monkeypatch.setattr(signals, "print_line", lambda line: said.append((line, time.monotonic())))
  with defer_signals(stop):
    with acknowledge_signals("compiling the step"):
      for delay in (0.05, 0.1):  # an impatient person sends it twice
        threading.Timer(delay, os.kill, (os.getpid(), number)).start()
      while stop.number is None:  # one call or several, by the speed of the machine
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_500_000)
      ended = time.monotonic()
      time.sleep(0.2)
    assert stop.number == number
  assert [line for line, _ in said] == [
    f"signal {number} has arrived: stops when this is done: compiling the step"
  ]
  assert said[0][1] < ended - 0.05


def test_other_signals_and_threads_are_left_alone(capsys):
  before = signal.signal(signal.SIGUSR1, lambda *_: None)
  try:
    with acknowledge_signals("this"):
      os.kill(os.getpid(), signal.SIGUSR1)
      time.sleep(0.01)
  finally:
    signal.signal(signal.SIGUSR1, before)
  assert signal.set_wakeup_fd(-1) == -1  # put back

  def work():
    with acknowledge_signals("that"):
      pass

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert capsys.readouterr().out == ""
