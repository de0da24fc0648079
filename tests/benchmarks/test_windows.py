"""What the benchmark of the input's cost asks of a source, and what it makes of its times."""

import itertools

import numpy as np

from benchmarks import windows


def test_windows_follow_each_other_and_their_feeds_go_on_beyond_them():
  """Else a source would read no new case, or have all steps ready before the first is timed."""
  steps = 8
  timed = [windows.window(pair, steps)[windows.READY : windows.READY + steps] for pair in range(3)]
  for pair, (a, b) in enumerate(itertools.pairwise(timed)):
    assert b.start == windows.window(pair, steps).start + 2 * windows.READY + steps
    assert b.start > a.stop
  for pair, of_pair in enumerate(timed):
    assert len(of_pair) == steps
    assert windows.window(pair, steps).stop - of_pair.stop == windows.READY


def test_untimed_steps_are_not_timed(monkeypatch):
  """Ten seconds for each untimed step, one for each timed one, by a clock that the step moves."""
  now, taken = [0.0], []
  monkeypatch.setattr(windows.time, "perf_counter", lambda: now[0])

  def step(state, feed):
    taken.append(feed)
    now[0] += 10 if feed < 3 else 1
    return state + 1, feed

  assert windows.seconds(step, 0, iter(range(100)), untimed=3, timed=5) == 1.0
  assert taken == list(range(8))


def test_the_interval_holds_the_median_and_grows_with_the_spread():
  wide = windows.ratio(np.linspace(0.8, 1.4, 31))
  narrow = windows.ratio(np.linspace(1.09, 1.11, 31))
  assert wide["ratio"] == narrow["ratio"] == 1.1
  (a, b), (c, d) = wide["ratio_95"], narrow["ratio_95"]
  assert a < c <= 1.1 <= d < b
