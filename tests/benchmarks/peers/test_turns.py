"""Workers are asked in turn; one that ends is told, and the others go on."""

import subprocess
import sys

import pytest

from benchmarks.peers import turns
from benchmarks.peers.contenders import OURS, RELEASED, RELEASED_AS_STARTED, list_contenders

# Answers as a worker does, by seconds that grow with each request.
_WORKER = """
import sys
print('@peer {"by": "a library 1.0"}', flush=True)
for number, line in enumerate(sys.stdin):
  print("said by a library", flush=True)
  if number == FAILS_AT: raise SystemExit("out of memory")
  is_end = line.strip() == "end"
  answer = '"peak_gib": 0.5' if is_end else '"seconds": %d' % (FACTOR * number + FACTOR)
  print("@peer {%s}" % answer, flush=True)
"""


def _start(factor: int, fails_at: int = -1) -> turns.Worker:
  source = f"FACTOR, FAILS_AT = {factor}, {fails_at}\n{_WORKER}"
  process = subprocess.Popen(
    [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip
  return turns.Worker(process)


def test_times_are_of_calls_in_turn_and_against_the_first(monkeypatch, capsys):
  workers = {OURS.name: lambda: _start(2), RELEASED.name: lambda: _start(3)}
  monkeypatch.setattr(turns, "start_worker", lambda contender, *_: workers[contender.name]())
  found = turns.time_in_turn([OURS, RELEASED], "inference", 16, 3)
  # Seconds of the three calls: 2, 4, 6 and 3, 6, 9.
  assert found[OURS.name]["median_s"] == 4
  assert found[RELEASED.name] == {
    "median_s": 6, "min_s": 3, "max_s": 9, "repeats": 3, "times_ours": 1.5,
    "by": "a library 1.0", "peak_gib": 0.5,
  }  # fmt: skip


def test_a_worker_that_ends_is_told_with_its_last_line(monkeypatch, capsys):
  workers = {OURS.name: lambda: _start(2), RELEASED.name: lambda: _start(3, fails_at=1)}
  monkeypatch.setattr(turns, "start_worker", lambda contender, *_: workers[contender.name]())
  found = turns.time_in_turn([OURS, RELEASED], "inference", 16, 3)
  assert found[RELEASED.name] == {"error": "status 1: out of memory"}
  assert found[OURS.name]["repeats"] == 3


def test_pages_are_those_of_the_contender_and_not_of_this_process(monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=2")
  assert "GLIBC_TUNABLES" not in turns.make_environment(RELEASED_AS_STARTED.environment)
  large = turns.make_environment(RELEASED.environment)
  assert large["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
  assert large["PATH"]


def test_a_program_is_timed_to_its_end_and_its_memory_is_its_own():
  # Held for a second, as the peak is looked at from outside, now and then.
  held = "a = bytearray(b'x') * (200 * 2**20); time.sleep(1)"
  done = turns.run_process(["timeit", "-n", "1", "-r", "1", "-s", "import time", held], {})
  assert 0.19 < done.peak_gib < 0.4
  assert done.seconds > 1
  assert "loop" in done.output


def test_a_program_that_fails_is_told_with_its_last_line():
  with pytest.raises(
    turns.ProcessFailedError, match=r"^status 1: .*No module named no_such_module"
  ):
    turns.run_process(["no_such_module"], {})


@pytest.mark.parametrize("work", ["training_step", "inference"])
def test_ours_is_first_and_no_name_is_there_twice(work):
  for quick in (True, False):
    names = [one.name for one in list_contenders(work, quick=quick)]
    assert names[0] == "ours"
    assert len(set(names)) == len(names)
  assert {one.name for one in list_contenders(work, quick=True)} < set(names)
