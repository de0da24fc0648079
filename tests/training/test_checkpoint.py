import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted, StopRequest, defer_signals
from attn_unet_jax.training import integrity
from attn_unet_jax.training.checkpoint import (
  list_saved_steps,
  open_checkpoints,
  restore_checkpoint,
)
from attn_unet_jax.training.read_checkpoint import restore_best
from attn_unet_jax.training.state import TrainState
from tests.conftest import ROOT, flip_a_bit, host_devices


def _state(step):
  params = {"kernel": jnp.full((2, 3), step / 7)}
  statistics = {"mean": jnp.full(3, step / 3)}
  averaged = {"params": params, "batch_stats": statistics}
  return TrainState(jnp.int32(step), params, statistics, (jnp.zeros(2), None), averaged)


@pytest.fixture
def unsaid():
  """Puts back what a failure changes for the rest of a program."""
  hook = sys.unraisablehook
  yield
  sys.unraisablehook = hook


def _like():
  return jax.eval_shape(lambda: _state(0))


@pytest.fixture
def store(tmp_path):
  with open_checkpoints(tmp_path / "checkpoints", keep=2) as opened:
    yield opened


def test_keeps_the_latest_and_the_best(store):
  for step, dsc in ((1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, 0.1), (6, None)):
    store.save(_state(step), dsc)
  store.close()
  assert sorted(int(p.name) for p in store.folder.iterdir() if p.name.isdigit()) == [2, 5, 6]
  assert store.latest_step == 6
  assert store.best_step == 2


def test_best_is_the_latest_without_validation(store):
  assert store.latest_step is None
  assert store.best_step is None
  store.save(_state(3))
  store.save(_state(8))
  assert store.best_step == 8
  store.save(_state(9), 0.0)  # the worst there can be, but it is known
  store.save(_state(10))
  assert store.best_step == 9


def test_restores_the_same_bits(store):
  store.save(_state(5), 0.3)
  like = jax.eval_shape(lambda: _state(5))
  restored = store.restore(5, like)
  assert jax.tree.structure(restored) == jax.tree.structure(_state(5))
  for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(_state(5)), strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


@pytest.mark.parametrize(
  ("changes", "difference"),
  [
    ({"params": {"kernel": jnp.zeros((2, 4))}}, r"params/kernel, \(2, 3\) there, \(2, 4\) by"),
    ({"params": {"other": jnp.zeros((2, 3))}}, r"params/other, missing there, \(2, 3\) by"),
    ({"opt_state": ()}, r"opt_state/0, \(2,\) there, missing by"),
    ({"ema": None}, r"ema/batch_stats/mean, \(3,\) there, missing by"),
  ],
)
def test_a_state_of_another_network_or_optimiser_is_refused(store, changes, difference):
  store.save(_state(5), 0.3)
  store.wait()
  like = jax.eval_shape(lambda: _state(0).replace(**changes))
  with pytest.raises(UserError, match=difference) as error:
    restore_best(store.folder, like)
  assert f"{store.folder.parent / 'config.json'};" in str(error.value)


def test_a_saved_step_gains_its_validation(store):
  store.save(_state(5), 0.3)
  store.save(_state(6))
  store.save(_state(6), 0.8)
  assert store.best_step == 6


def test_a_step_is_saved_once(store):
  store.save(_state(5), 0.3)
  store.save(_state(5))
  assert store.best_step == 5


@pytest.fixture
def stopped(monkeypatch):
  """A signal comes while a save is written, slowly; where nothing notes it, it breaks in."""
  write, stop = integrity.write_seal, StopRequest(at_once=True)

  def slowly(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
    write(*arguments)

  monkeypatch.setattr(integrity, "write_seal", slowly)
  with defer_signals(stop):
    yield stop


def test_a_signal_at_the_end_waits_for_the_last_save(stopped, tmp_path):
  with pytest.raises(Interrupted) as stop, open_checkpoints(tmp_path, 1) as store:
    store.save(_state(5))
  assert (stop.value.status, list_saved_steps(tmp_path)) == (143, [5])
  assert stopped.at_once  # it did not come through where signals break in


def test_what_ended_a_run_is_told_though_a_signal_came_while_it_was_saved(
  stopped, tmp_path, unsaid
):
  def fail():
    with open_checkpoints(tmp_path, 1) as store:
      store.save(_state(5))
      raise UserError("why")

  with pytest.raises(UserError, match="why"):
    fail()
  assert list_saved_steps(tmp_path) == [5]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  """Steps 1, 2 and 3, the second the best."""
  folder = tmp_path_factory.mktemp("run") / "checkpoints"
  with open_checkpoints(folder, keep=3) as opened:
    for step, dsc in ((1, 0.2), (2, 0.9), (3, None)):
      opened.save(_state(step), dsc)
  return folder


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {"flipped": flip_a_bit, "truncated": _truncate, "missing": lambda path: path.unlink()}


def _assert_is(state, step):
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(_state(step)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint_is_sealed_or_not_needed(three, tmp_path, damage):
  folder, sealed = tmp_path / "3", []
  names = [p.relative_to(three / "3") for p in (three / "3").rglob("*") if p.is_file()]
  for name in names:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(three / "3", folder)
    DAMAGES[damage](folder / name)
    if str(name) in ("_CHECKPOINT_METADATA", "commit_success.txt"):
      _assert_is(restore_checkpoint(folder, _like()), 3)
    else:
      with pytest.raises(integrity.DamagedError, match=re.escape(str(name))):
        restore_checkpoint(folder, _like())
      sealed.append(name)
  assert len(sealed) == len(names) - 2 > 5


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_goes_on_from_the_one_before_a_damaged_checkpoint(three, tmp_path, capsys, damage):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  DAMAGES[damage](next((folder / "3" / "default" / "d").iterdir()))
  with open_checkpoints(folder, keep=2) as store:
    told = rf"{folder}/3 is damaged \(default/d/.*\): left as 3\.damaged; 2 is the newest intact\n"
    assert re.fullmatch(told, capsys.readouterr().out)
    assert store.latest_step == 2
    _assert_is(store.restore(2, _like()), 2)
    store.save(_state(3))  # again, beside what is left of the damaged one
  assert list_saved_steps(folder) == [2, 3]
  _assert_is(restore_checkpoint(folder / "3", _like()), 3)
  assert (folder / "3.damaged" / "default").is_dir()


def test_a_reader_takes_the_next_best_and_changes_nothing(three, tmp_path, capsys):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  _assert_is(restore_best(folder, _like()), 2)
  flip_a_bit(folder / "2" / "default" / "_METADATA")
  before = sorted(folder.rglob("*"))
  _assert_is(restore_best(folder, _like()), 1)
  assert f"{folder}/2 is damaged (default/_METADATA: not what" in capsys.readouterr().out
  (folder / "1" / integrity.SEAL_NAME).write_text("{}")
  _assert_is(restore_best(folder, _like()), 3)
  assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "3", "[]", "{}", 100_000 * "["])
def test_a_seal_that_is_none_is_damage(tmp_path, content):
  (tmp_path / integrity.SEAL_NAME).write_text(content)
  with pytest.raises(integrity.DamagedError, match=r"seal\.json: not what was saved"):
    integrity.verify_checkpoint(tmp_path)


def test_without_an_intact_checkpoint_it_is_the_users_turn(three, tmp_path):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  for step in list_saved_steps(folder):
    _truncate(folder / str(step) / "default" / "manifest.ocdbt")
  before = sorted(folder.rglob("*"))
  for opening in (
    lambda: open_checkpoints(folder, 2).__enter__(),
    lambda: restore_best(folder, _like()),
  ):
    with pytest.raises(UserError, match=r"every checkpoint is damaged \(3: default.*\); bring"):
      opening()
  assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", [integrity.SEAL_NAME, "default/_METADATA"])
def test_a_file_that_may_not_be_read_is_no_damage(three, tmp_path, unreadable, name):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  unreadable(folder / "2" / name)
  for opening in (
    lambda: open_checkpoints(folder, 2).__enter__(),
    lambda: restore_best(folder, _like()),
  ):
    with pytest.raises(PermissionError, match=name):
      opening()
  assert list_saved_steps(folder) == [1, 2, 3]


@pytest.mark.parametrize("name", [integrity.SEAL_NAME, "default/_METADATA"])
def test_a_file_that_the_disk_cannot_read_is_damage(three, tmp_path, unreadable, capsys, name):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  unreadable(folder / "3" / name, errno.EIO)
  unreadable(folder / "2" / name, errno.EIO)
  _assert_is(restore_best(folder, _like()), 1)
  assert list_saved_steps(folder) == [1, 2, 3]
  with open_checkpoints(folder, keep=2) as store:
    told = f"{folder}/3 is damaged ({name}: Input/output error): left as 3.damaged; 1 is the newest"
    assert told in capsys.readouterr().out
    assert store.latest_step == 1
  unreadable(folder / "1" / name, errno.EIO)
  with pytest.raises(UserError, match=rf"is damaged \(1: {name}: Input/output error\); bring"):
    open_checkpoints(folder, keep=2).__enter__()
  assert sorted(path.name for path in folder.iterdir()) == ["1", "2.damaged", "3.damaged"]


def test_a_score_that_comes_later_is_sealed_too(three, tmp_path):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  with open_checkpoints(folder, keep=1) as store:
    files = {p: p.read_bytes() for p in (folder / "3").rglob("*") if p.is_file()}
    store.save(_state(3), 0.95)
    assert store.best_step == 3
    changed = [p.name for p, content in files.items() if p.read_bytes() != content]
    assert changed == [integrity.SEAL_NAME]  # the state is never written a second time
  with open_checkpoints(folder, keep=1) as store:
    assert store.best_step == 3
    store.save(_state(4))
  assert list_saved_steps(folder) == [3, 4]
  content = json.loads((folder / "3" / integrity.SEAL_NAME).read_text())
  (folder / "3" / integrity.SEAL_NAME).write_text(json.dumps({**content, "validation_dsc": 0.99}))
  with pytest.raises(integrity.DamagedError, match=integrity.SEAL_NAME):
    integrity.verify_checkpoint(folder / "3")


def test_damage_that_comes_while_a_run_is_open_is_told(three, tmp_path):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  told = rf"^{folder}/3: damaged since .*seal\.json: not what was saved\); start again"
  with open_checkpoints(folder, keep=3) as store:
    flip_a_bit(folder / "3" / integrity.SEAL_NAME)
    for use in (lambda: store.restore(3, _like()), lambda: store.save(_state(3), 0.5)):
      with pytest.raises(UserError, match=told):
        use()


def test_what_a_kill_left_unfinished_is_removed(three, tmp_path):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  (folder / "3").rename(folder / "3.orbax-checkpoint-tmp")
  _assert_is(restore_best(folder, _like()), 2)
  assert (folder / "3.orbax-checkpoint-tmp").is_dir()  # a run may be writing it
  with open_checkpoints(folder, keep=3) as store:
    assert store.latest_step == 2
    store.save(_state(3))
  assert sorted(p.name for p in folder.iterdir()) == ["1", "2", "3"]


def test_an_older_damaged_checkpoint_does_not_hide_which_one_is_used(three, tmp_path, capsys):
  folder = tmp_path / "checkpoints"
  shutil.copytree(three, folder)
  (folder / "1" / integrity.SEAL_NAME).unlink()
  with open_checkpoints(folder, keep=3) as store:
    assert "left as 1.damaged; 3 is the newest intact" in capsys.readouterr().out
    assert store.latest_step == 3


KILLED_IN_DELETION = """
import os, signal, sys
from pathlib import Path
from attn_unet_jax.training.checkpoint import open_checkpoints
from tests.training.test_checkpoint import _state
folder, names, removed = Path(sys.argv[1]), [], []
def kill_at_the_third(event, arguments):
  if event == "os.rename" and os.path.basename(arguments[1]) == "2":
    names.extend(path.name for path in (folder / "1").rglob("*") if path.is_file())
  if event == "os.remove" and os.path.basename(arguments[0]) in names:
    removed.append(arguments[0])
    if len(removed) == 3:
      os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill_at_the_third)
with open_checkpoints(folder, keep=1) as store:
  store.save(_state(1))
  store.save(_state(2))
"""


def test_a_kill_while_an_old_checkpoint_is_deleted_is_no_damage(tmp_path, capsys):
  folder = tmp_path / "checkpoints"
  command = [sys.executable, "-c", KILLED_IN_DELETION, str(folder)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
  assert list_saved_steps(folder) == [2]
  assert sum(path.is_file() for path in folder.rglob("*")) > len(list((folder / "2").rglob("*")))
  _assert_is(restore_best(folder, _like()), 2)
  with open_checkpoints(folder, keep=1) as store:
    assert [path.name for path in folder.iterdir()] == ["2"]
    assert (store.latest_step, capsys.readouterr().out) == (2, "")
    store.save(_state(3))
  assert [path.name for path in folder.iterdir()] == ["3"]


def test_what_was_deleted_is_gone_before_the_next_is_written(tmp_path, monkeypatch):
  """So that a run never needs more room than its checkpoints and one more."""
  lying, write = [], integrity.write_seal

  def look(folder, dsc):
    lying.append(sorted(path.name for path in tmp_path.rglob("[0-9]*") if path.name.isdigit()))
    write(folder, dsc)

  monkeypatch.setattr(integrity, "write_seal", look)
  with open_checkpoints(tmp_path, keep=1) as store:
    for step in (21, 22, 23):
      store.save(_state(step))
  assert lying == [[], ["21"], ["22"]]


ELSEWHERE = """
import sys
from pathlib import Path
import jax
import numpy as np
from attn_unet_jax.training.checkpoint import open_checkpoints, restore_checkpoint
from attn_unet_jax.training.mesh import get_first_device_copy, make_replicated_sharding
from tests.configs import small_config
from tests.training.test_checkpoint import _assert_is, _like, _state
config, (one, eight) = small_config(**{"train.batch_size": 8}), map(Path, sys.argv[1:])
state = restore_checkpoint(one / "3", _like(), make_replicated_sharding(config))
assert all(len(x.devices()) == 8 for x in jax.tree.leaves(state))
_assert_is(get_first_device_copy(state), 3)
with open_checkpoints(eight, 1) as store:
  store.save(jax.tree.map(lambda x: x + 1, state))
"""


def test_a_checkpoint_opens_on_eight_devices_and_theirs_on_one(three, tmp_path):
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", ELSEWHERE, str(three), str(tmp_path / "eight")],
    cwd=ROOT,
    env=host_devices(8),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  state = restore_checkpoint(tmp_path / "eight" / "4", _like())
  assert all(len(x.devices()) == 1 for x in jax.tree.leaves(state))
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(_state(3)), strict=True):
    np.testing.assert_array_equal(a, b + 1)


def test_what_follows_from_a_failed_write_is_not_said_again(tmp_path, unsaid):
  """Also once the run has ended with it: TensorStore's threads go on for a while."""
  said = []
  sys.unraisablehook = lambda late: said.append(str(late.exc_value))

  def fail():
    with open_checkpoints(tmp_path, 1):
      tell("Event loop is closed")
      tell("something else")
      raise UserError("no room")

  def tell(what):
    sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(what)))

  with pytest.raises(UserError):
    fail()
  tell("Event loop is closed")
  assert said == ["something else"]


def test_nothing_is_kept_unsaid_after_a_run_that_ends_well(tmp_path):
  hook = sys.unraisablehook
  with open_checkpoints(tmp_path, 1):
    assert sys.unraisablehook is not hook
  assert sys.unraisablehook is hook


def test_a_folder_that_vanished_is_not_made_again(store):
  """Orbax would make it, and the run would end as if all its checkpoints were there."""
  store.save(_state(5), 0.3)
  store.wait()
  shutil.rmtree(store.folder)
  with pytest.raises(UserError, match=r"checkpoints: gone, .*; step 6 is not saved"):
    store.save(_state(6))
  assert not store.folder.exists()
