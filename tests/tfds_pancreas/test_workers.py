"""The same work in one process, in several and on Beam."""

import functools
import os
import signal
import sys
import threading
import time

import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted
from tfds_pancreas.workers import (
  choose_worker_count,
  make_beam_for_each,
  make_local_for_each,
  parse_beam_options,
)

PLACES = {
  "here": lambda: make_local_for_each(1),
  "processes": lambda: make_local_for_each(2),
  "beam": lambda: make_beam_for_each("DirectRunner", None),
}


def note_process(folder, item):
  """Leaves a file that says which process had the item."""
  (folder / str(item)).write_text(str(os.getpid()))


def fail_at_three(item):
  if item == 3:
    raise OSError(28, "No space left on device")


def kill_own_process(item):
  os.kill(os.getpid(), signal.SIGKILL)


def sleep_long(folder, item):
  note_process(folder, item)
  time.sleep(300)


@pytest.mark.parametrize("place", PLACES)
def test_every_item_is_worked_on(place, tmp_path):
  PLACES[place]()(functools.partial(note_process, tmp_path), range(7))
  assert sorted(path.name for path in tmp_path.iterdir()) == [str(item) for item in range(7)]
  where = {path.read_text() for path in tmp_path.iterdir()}
  assert (str(os.getpid()) in where) == (place != "processes")


@pytest.mark.parametrize("place", PLACES)
def test_what_fails_is_raised(place):
  with pytest.raises(OSError, match="No space left"):
    PLACES[place]()(fail_at_three, range(5))


def stop_at_three(item):
  if item == 3:
    raise Interrupted(signal.SIGTERM)


def test_a_signal_ends_beam_as_it_ends_all():
  with pytest.raises(Interrupted) as caught:
    PLACES["beam"]()(stop_at_three, range(5))
  assert caught.value.status == 143


def test_a_killed_worker_is_told_with_a_way_out():
  with pytest.raises(UserError, match="use fewer --workers"):
    make_local_for_each(2)(kill_own_process, range(3))


def interrupt_when(folder, count):
  """Sends Ctrl-C to this process once so many items are in work."""
  while len(list(folder.iterdir())) < count:
    time.sleep(0.05)
  os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _ctrl_c_is_heard():
  """Lets Ctrl-C be heard in the background of a shell too, which has it ignored."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_workers_end_at_once_when_the_parent_is_interrupted(tmp_path):
  start = time.monotonic()
  threading.Thread(target=interrupt_when, args=(tmp_path, 2), daemon=True).start()
  with pytest.raises(KeyboardInterrupt):
    make_local_for_each(2)(functools.partial(sleep_long, tmp_path), range(5))
  assert time.monotonic() - start < 200
  for path in tmp_path.iterdir():
    with pytest.raises(ProcessLookupError):
      os.kill(int(path.read_text()), 0)


def test_as_many_workers_as_cores_and_memory_allow(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
  memory = type("Memory", (), {"available": 9e9})
  monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
  assert choose_worker_count() == 4
  memory.available = 1e8
  assert choose_worker_count() == 1
  memory.available = 1e12
  assert choose_worker_count() == 16


def test_an_unknown_runner_is_refused_with_those_there_are():
  with pytest.raises(UserError, match=r"--beam_runner=NoRunner: .*FlinkRunner"):
    make_beam_for_each("NoRunner", None)(fail_at_three, [1])


def test_options_reach_beam():
  options = parse_beam_options(
    ["flink_master=HOST:8081", "direct_num_workers=3", "no_use_public_ips"]
  )
  given = {"flink_master": "HOST:8081", "direct_num_workers": 3, "use_public_ips": False}
  assert options.get_all_options(drop_default=True) == given


def test_without_beam_one_line_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[beam\]'"):
    parse_beam_options([])


@pytest.mark.parametrize(
  ("options", "complaint"),
  [
    (["foo"], "^--beam_options=foo: Apache Beam has no option foo; write"),
    (["parallelism=2", "foo=1"], "^--beam_options=parallelism=2,foo=1: .* no option foo; write"),
    (["direct_num_workers=x"], "Apache Beam does not take it: .*: invalid int value: 'x'$"),
  ],
)
def test_an_option_that_beam_does_not_take_is_refused_in_one_line(options, complaint, capsys):
  with pytest.raises(UserError, match=complaint):
    parse_beam_options(options)
  assert capsys.readouterr().err == ""
