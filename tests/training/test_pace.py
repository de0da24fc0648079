"""What a training says of its time: before it compiles, while it does, and after some steps."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from attn_unet_jax.training import mesh, pace
from attn_unet_jax.training.pace import PaceReport, announce_and_compile, warn_of_long_training
from attn_unet_jax.workflows.network import build_run_network
from tests.configs import with_keys

_HALF_AND_WHOLE = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float32)


@pytest.fixture
def clock(monkeypatch):
  """A clock that a test sets."""
  now = SimpleNamespace(time=0.0)
  monkeypatch.setattr(pace.time, "monotonic", lambda: now.time)
  return now


def test_the_time_of_an_epoch_and_of_the_rest_is_that_of_steps_after_the_first(clock, capsys):
  report = PaceReport(1000, 50)
  for seconds in (100.0, 2.0, 2.0, 2.0, 2.0, 2.0, 7.0):  # the first waits for its patches
    assert capsys.readouterr().out == ""
    clock.time += seconds
    report.note_step(jnp.zeros(()))
    if seconds == 2.0 and clock.time == 110.0:
      break
  assert capsys.readouterr().out == (
    "a step takes 2 s: an epoch about 1m40s, the 994 steps that are left about 33m08s, and the "
    "validations on top\n"
  )
  clock.time += 9.0
  report.note_step(jnp.zeros(()))
  assert capsys.readouterr().out == ""


def test_slow_steps_are_told_of_early_and_short_trainings_not_at_all(clock, capsys):
  slow, short, one_epoch = PaceReport(31000, 31), PaceReport(8, 50), PaceReport(99, 99)
  for _ in range(3):
    clock.time += 14.0
    slow.note_step(jnp.zeros(()))
  assert "a step takes 14 s: an epoch about 7m14s, the 30997 steps " in capsys.readouterr().out
  for _ in range(8):
    clock.time += 1.0
    short.note_step(jnp.zeros(()))
  assert capsys.readouterr().out == ""
  for _ in range(6):
    clock.time += 3.0
    one_epoch.note_step(jnp.zeros(()))
  assert "a step takes 3 s: an epoch about 4m57s, the 93 steps " in capsys.readouterr().out


@pytest.mark.parametrize(("rate", "steps", "warns"), [
  (1e3, 2_000_000, True),
  (1e18, 2_000_000, False),
  (1e3, 1000, False),
])  # fmt: skip
def test_a_recipe_out_of_proportion_to_the_machine_is_told_before(
  config, monkeypatch, capsys, rate, steps, warns
):
  monkeypatch.setattr(pace, "measure_rate", lambda: rate)
  warn_of_long_training(config, build_run_network(config, 2), steps)
  said = capsys.readouterr().out
  assert said.startswith(f"warning: these {steps} steps of ") == warns
  assert ("--config=pancreas:small" in said) == warns


def test_devices_that_the_recipe_leaves_out_do_not_count(config, monkeypatch, capsys):
  monkeypatch.setattr(pace, "measure_rate", lambda: 1e10)
  monkeypatch.setattr(jax, "device_count", lambda: 10**6)
  config, present = with_keys(config, {"parallel.data": 1}), jax.devices() * 10**6
  monkeypatch.setattr(mesh.jax, "devices", lambda: present)
  warn_of_long_training(config, build_run_network(config, 2), 2 * 10**8)
  assert capsys.readouterr().out.startswith("warning: these 200000000 steps of ")


def test_the_rate_of_the_device_is_that_of_a_computer():
  assert 1e8 < pace.measure_rate() < 1e16


@pytest.mark.parametrize(("seconds", "said"), [(0.5, ""), (12.0, "about 48 s; less if it was ")])
def test_a_long_compilation_is_announced(clock, capsys, seconds, said):
  step = jax.jit(lambda state, feed: (state + feed, state))

  def lower(*arguments):
    clock.time += seconds
    return step.lower(*arguments)

  compiled = announce_and_compile(SimpleNamespace(lower=lower), jnp.ones(3), jnp.ones(3))
  assert compiled(jnp.ones(3), jnp.ones(3))[0].tolist() == [2, 2, 2]
  told = capsys.readouterr().out
  assert told.startswith(said and f"compiling the training step, {said}")
  assert bool(told) == bool(said)


def test_a_step_whose_state_changes_its_type_can_be_called_again():
  """As statistics that are begun in bfloat16 and go on in float32."""
  step = announce_and_compile(jax.jit(lambda state, feed: (state + feed, feed)), *_HALF_AND_WHOLE)
  state, feed = _HALF_AND_WHOLE
  for expected in (2.0, 3.0):
    state, _ = step(state, feed)
    assert (state.dtype, state.tolist()) == (jnp.float32, [expected] * 3)


def test_a_step_that_compiles_when_it_is_called_is_announced(capsys):
  step = lambda state, feed: (state, feed)  # noqa: E731
  assert announce_and_compile(step, 1, 2) is step
  assert capsys.readouterr().out == "compiling the training step\n"
