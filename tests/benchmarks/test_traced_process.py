"""What a traced command has used, up to a line and to its end."""

import pytest

from benchmarks.traced_process import trace_until

SCRIPT = """
import time
print("begin")
held = bytearray(300 << 20)
held[::4096] = b"1" * len(held[::4096])
until = time.process_time() + 0.5
while time.process_time() < until: pass
print("line of interest")
until = time.process_time() + {rest}
while time.process_time() < until: pass
print("end")
until = time.process_time() + 0.5
while time.process_time() < until: pass
raise SystemExit({status})
"""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
  def write(rest=0.5, status=0):
    (tmp_path / "traced.py").write_text(SCRIPT.format(rest=rest, status=status))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "traced"

  return write


def test_up_to_a_line_and_to_the_end(write_module):
  part = trace_until("line of", write_module(rest=60))
  whole = trace_until(None, write_module())
  assert 0.5 <= part.cpu_s < 60  # it was not waited for
  assert whole.cpu_s >= 1.5  # with what follows its last line
  for usage in (part, whole):
    assert usage.peak_gib > 0.29
    assert usage.wall_s > 0.5


def test_a_command_that_fails_or_never_says_it_is_an_error(write_module):
  with pytest.raises(RuntimeError, match="status 3: end"):
    trace_until(None, write_module(status=3))
  with pytest.raises(RuntimeError, match="status 0: end"):
    trace_until("never", write_module())
