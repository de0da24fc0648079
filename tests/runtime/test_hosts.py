"""Checks that two processes with two simulated devices each train what one device trains."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.patches.batch import make_plan
from attn_unet_jax.patches.schedule import sample_batch
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import state
from attn_unet_jax.training.checkpoint import list_saved_steps, restore_checkpoint
from attn_unet_jax.training.mesh import select_devices
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from experiments.pancreas import get_config
from tests import wide
from tests.configs import SMALLEST, small_config, with_keys
from tests.conftest import ROOT, flags_of, host_devices
from tests.line import Line

MAIN = "attn_unet_jax.main"
CASES = 4  # for training, of phantom_ct/tiny
LINE = Line(batch_norm=True, dtype=jnp.float64)  # its parameters are float64 too


def _make_config(phantoms, **keys):
  own = {
    "data.dir": str(phantoms),
    "augment.flip": (0.5, 0.5, 0.5),
    "augment.noise_sd": (0.0, 0.1),
    "train.batch_size": 4,
    "train.epochs": 4,
    "train.steps_per_epoch": 5,
    "train.validate_every": 2,
  }
  return small_config(**{**own, **keys})


def _start_processes(module, config, workdir, flags=((),), count=2, experiment="tests/small.py"):
  """Starts a process for each tuple of flags; several are the hosts of one run."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  env = {**host_devices(count), "JAX_ENABLE_X64": "1"}
  common = [f"--config={experiment}", f"--workdir={workdir}", *flags_of(config)]
  several = [f"--coordinator=localhost:{port}", f"--processes={len(flags)}"]
  return [
    subprocess.Popen(
      [sys.executable, "-m", module, *common, *own]
      + ([*several, f"--process={index}"] if len(flags) > 1 else []),
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index, own in enumerate(flags)
  ]


def _wait_for(processes):
  """Waits for the end of each; returns status, output without the lines of Gloo, and errors."""
  streams = [process.communicate(timeout=570) for process in processes]
  outputs = [
    # Gloo's threads tear each other's lines: the end of one may stand alone.
    [line for line in out.splitlines() if line and not re.search(r"\[Gloo\]|peer ranks", line)]
    for out, _ in streams
  ]
  return [
    (process.returncode, out, errors)
    for process, out, (_, errors) in zip(processes, outputs, streams, strict=True)
  ]


def _train_to_end(config, workdir, *flags, **keywords):
  """Runs to a good end and returns the output of each process."""
  ended = _wait_for(_start_processes("tests.tiny_run", config, workdir, flags or ((),), **keywords))
  assert [(status, errors) for status, _, errors in ended] == [(0, "")] * len(ended)
  return [output for _, output, _ in ended]


def _assert_same_end(config, a, b, module):
  """Compares the parameters, which are float64, to 1e-7, and the logged metrics."""
  with jax.enable_x64(True):
    like, states = abstract_state(config, module), []
    for workdir in (a, b):
      step = list_saved_steps(workdir / "checkpoints")[-1]
      assert step == config.train.epochs * config.train.steps_per_epoch
      states.append(restore_checkpoint(workdir / "checkpoints" / str(step), like))
    for x, y in zip(*(jax.tree.leaves(reached.params) for reached in states), strict=True):
      assert x.dtype == np.float64
      np.testing.assert_allclose(x, y, atol=1e-7, rtol=0)
  for x, y in zip(*(read_metrics(workdir / "metrics.csv") for workdir in (a, b)), strict=True):
    for name in ("epoch", "train_seg_loss", "test_seg_loss", "validation_dsc"):
      assert x[name] == y[name]


def _read_refusal(ended, status=2):
  """Returns the one line of errors that all processes printed."""
  assert [code for code, _, _ in ended] == [status] * len(ended), ended
  lines = {errors for _, _, errors in ended}
  assert len(lines) == 1, lines
  return lines.pop()


@pytest.mark.slow
def test_two_hosts_train_the_parameters_of_one_and_read_only_their_cases(phantoms, tmp_path):
  """Also if the second host would begin with other parameters."""
  config = _make_config(phantoms, **{"data.source": "streaming", "data.patches_per_case": 100})
  two, one = tmp_path / "two", tmp_path / "one"
  files = [tmp_path / "first", tmp_path / "second"]
  first, second = ([f"--reads={file}"] for file in files)
  outputs = _train_to_end(config, two, first, [*second, "--other_start"])
  _train_to_end(config, one, count=1)
  _assert_same_end(config, one, two, LINE)
  drawn = [
    set(np.asarray(sample_batch(make_plan(config, CASES), config.seed, step).case[2:]).tolist())
    for step in range(20)
  ]
  read = [json.loads(file.read_text()) for file in files]
  assert len(read[0]) == CASES  # it measures the losses too
  assert len(read[1]) == len(set.union(*drawn)) == 2
  assert any("epoch 4/4" in line for line in outputs[0])
  assert not outputs[1]
  record = json.loads((two / "run.json").read_text())
  assert (record["exit"], len(record["devices"])) == ("done", 4)


@pytest.mark.slow
def test_a_signal_to_one_host_ends_all_and_one_device_trains_the_rest(phantoms, tmp_path):
  """SIGTERM to the second host, then, in a second start, SIGINT to the first."""
  keys = {"train.epochs": 24, "parallel.data": 4}
  config, two, one = _make_config(phantoms, **keys), tmp_path / "two", tmp_path / "one"
  reached = [0]
  for number, host in ((signal.SIGTERM, 1), (signal.SIGINT, 0)):
    processes = _start_processes("tests.tiny_run", config, two, ((), ()))
    while list_saved_steps(two / "checkpoints")[-1:] < [reached[-1] + 10]:
      assert processes[host].poll() is None, _wait_for(processes)
      time.sleep(0.02)
    processes[host].send_signal(number)
    ended = _wait_for(processes)
    assert [(status, errors) for status, _, errors in ended] == [(128 + number, "")] * 2
    assert f"stopped by signal {number}; saved after step" in ended[0][1][-1]
    assert not ended[1][1]
    reached.append(list_saved_steps(two / "checkpoints")[-1])
  assert reached == sorted({*reached, 0})
  assert reached[-1] < 120
  config = with_keys(config, {"parallel.data": 1})
  output = _train_to_end(config, two, count=1)
  assert f"{two} resumes with parallel.data=1, was 4" in output[0]
  _train_to_end(config, one, count=1)
  _assert_same_end(config, one, two, LINE)


@pytest.mark.soak
def test_a_signal_to_one_host_before_a_validation_leaves_it_to_the_next_start(phantoms, tmp_path):
  config, two = _make_config(phantoms), tmp_path / "two"
  ended = _wait_for(_start_processes("tests.tiny_run", config, two, ((), ["--stop_in_save=10"])))
  assert [(status, errors) for status, _, errors in ended] == [(143, "")] * 2
  assert ended[0][1][-1] == "stopped by signal 15; saved after step 10, start again to go on"
  assert list_saved_steps(two / "checkpoints")[-1] == 10
  assert [row["epoch"] for row in read_metrics(two / "metrics.csv")] == ["1"]
  _train_to_end(config, two, count=1)
  _train_to_end(config, tmp_path / "one", count=1)
  _assert_same_end(config, tmp_path / "one", two, LINE)


@pytest.mark.soak
@pytest.mark.parametrize("killed", [0, 1])
def test_a_host_that_is_killed_takes_the_others_along_and_the_run_goes_on(
  phantoms, tmp_path, killed
):
  """It ends with the bits of two undisturbed hosts. Process 0 learns of the kill after 100 s."""
  config = _make_config(phantoms, **{"train.epochs": 60})
  two, whole = tmp_path / "two", tmp_path / "one"
  processes = _start_processes("tests.tiny_run", config, two, ((), ()))
  while list_saved_steps(two / "checkpoints")[-1:] < [20]:
    assert processes[killed].poll() is None, _wait_for(processes)
    time.sleep(0.02)
  processes[killed].kill()
  ended = _wait_for(processes)
  assert (ended[killed][0], ended[1 - killed][0]) == (-signal.SIGKILL, -signal.SIGABRT)
  assert "another task died" in ended[1 - killed][2]
  assert list_saved_steps(two / "checkpoints")[-1] < 300
  for workdir, first in ((two, False), (whole, True)):
    output = _train_to_end(config, workdir, (), ())[0]
    assert any("epoch 1/60" in line for line in output) == first
  with jax.enable_x64(True):
    like, folders = abstract_state(config, LINE), (w / "checkpoints/300" for w in (two, whole))
    states = [jax.tree.leaves(restore_checkpoint(folder, like)) for folder in folders]
  for x, y in zip(*states, strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_host_that_fails_alone_takes_the_others_along(phantoms, tmp_path):
  config = _make_config(phantoms, **{"data.source": "streaming"})
  unreadable = [f"--unreadable=phantom_000{index}" for index in range(CASES)]
  own = (["--grace=2"], ["--grace=2", *unreadable])
  processes = _start_processes("tests.tiny_run", config, tmp_path, own)
  ended = _wait_for(processes)
  assert [status for status, _, _ in ended] == [2, 2]
  assert "another host of the run ended" in ended[0][2]
  assert re.fullmatch(r"error: phantom_000\d: cannot be read\n", ended[1][2])


def test_a_mesh_of_fewer_devices_than_there_are_is_refused_by_all(phantoms, tmp_path):
  config = _make_config(phantoms, **{"parallel.data": 2})
  error = _read_refusal(_wait_for(_start_processes("tests.tiny_run", config, tmp_path, ((), ()))))
  assert "config.parallel.data=2" in error
  assert "the 2 hosts have 4 devices together" in error


def _make_shortest_config(phantoms):
  return _make_config(phantoms, **SMALLEST, **{"train.epochs": 1, "train.steps_per_epoch": 2})


@pytest.mark.slow
def test_the_command_on_two_hosts_trains_tests_and_goes_on(phantoms, tmp_path):
  config = _make_shortest_config(phantoms)
  for said in ("new run", "resuming"):
    ended = _wait_for(_start_processes(MAIN, config, tmp_path / "run", ((), ())))
    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * 2
    assert ended[0][1][0].startswith("device: 4 x cpu, ")  # of both hosts
    assert ended[0][1][1].startswith(said)
    assert not ended[1][1]
  scores = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())
  assert scores["checkpoint_step"] == 2


@pytest.mark.soak
def test_the_command_refuses_hosts_whose_flags_or_file_systems_differ(phantoms, tmp_path):
  config, other = _make_shortest_config(phantoms), [f"--workdir={tmp_path / 'other'}"]
  error = _read_refusal(
    _wait_for(_start_processes(MAIN, config, tmp_path / "a", ((), ["--config.seed=1"])))
  )
  assert error.startswith("error: --config: not the same on process 0 and process 1")
  assert error.endswith("for a run on each, give --coordinator=none\n")
  ended = _wait_for(_start_processes(MAIN, config, tmp_path / "a", ((), other)))
  for folder, (status, _, error) in zip(("a", "other"), ended, strict=True):
    assert (status, f"{folder}/folds.json: process 1 does not see it" in error) == (2, True), error
  assert not (tmp_path / "other").exists()


def test_a_host_that_differs_is_named(monkeypatch, tmp_path):
  """By what process 0 of two gathers from both."""
  monkeypatch.setattr(hosts, "all_gather", lambda own: np.array([own, False]))
  with pytest.raises(UserError, match=r"--config: not the same on process 0 and process 1; give"):
    hosts.check_same_on_hosts("--config", "seed=0", "give both the same")
  (tmp_path / "folds.json").write_text("{}")
  with pytest.raises(UserError, match=r"folds\.json: process 1 does not see it"):
    hosts.check_shared_path(tmp_path / "folds.json")
  monkeypatch.setattr(hosts, "all_gather", lambda own: np.array([own, own]))
  hosts.check_same_on_hosts("--config", "seed=0", "give both the same")
  hosts.check_shared_path(tmp_path / "folds.json")


@pytest.mark.soak
def test_two_hosts_train_the_demo_or_begin_it_and_one_device_ends_it(
  phantoms, tmp_path, monkeypatch
):
  """20 steps, or 10 and 10, against 20 on one device, of a small network on small phantoms."""
  experiment = "experiments/pancreas.py:phantom"
  keys = {"data.dataset": "phantom_ct/tiny", "data.dir": str(phantoms), "data.spacing_mm": 10.0}
  keys |= {"data.patch": (16, 16, 16), "model.feature_scale": 32.0}
  keys |= {"model.gates": 1, "model.conv": "native"}
  keys |= {"train.batch_size": 4, "train.epochs": 2, "train.steps_per_epoch": 10}
  keys |= {"train.loss_patches": 4, "train.validate_every": 1}
  config = with_keys(resolve_draft(get_config("phantom")), keys)
  run, two, one = "tests.tiny_run", tmp_path / "two", tmp_path / "one"
  whole = tmp_path / "whole"
  first = (["--network", "--stop_at=10"],) * 2
  ended = _wait_for(_start_processes(run, config, two, first, experiment=experiment))
  assert [(status, errors) for status, _, errors in ended] == [(143, "")] * 2
  assert list_saved_steps(two / "checkpoints") == [10]
  for folder in (two, one):
    output = _train_to_end(config, folder, ["--network"], count=1, experiment=experiment)
    assert any("epoch 2/2" in line for line in output[0])
  _train_to_end(config, whole, *[["--network"]] * 2, experiment=experiment)
  monkeypatch.setattr(state, "make_initial_state", wide.start)
  module = build_run_network(config, 2).clone(
    dtype=jnp.dtype("float64")
  )  # which no config can ask for
  for several in (two, whole):
    _assert_same_end(config, one, several, module)


@pytest.mark.parametrize(
  ("keys", "joined", "said"),
  [
    ({"parallel.data": 3}, True, r"data=3, .*space=1: the 2 hosts have 4 devices together"),
    ({"parallel.data": 2, "parallel.space": 1}, True, "make the product 4"),
    ({"parallel.mode": "pmap"}, True, "mode='pmap': for one host"),
    ({}, False, "one of 2 hosts: start it on each, with --coordinator=auto"),
  ],
)
def test_what_several_hosts_cannot_do_is_refused(monkeypatch, keys, joined, said):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(jax, "device_count", lambda: 4)
  monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * 4)
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: joined)
  with pytest.raises(UserError, match=said):
    select_devices(_make_config("", **keys))


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (("node1:1234", 2, None), "--process=None: give --processes=N and, from 0 to N - 1, --proc"),
    (("node1:1234", None, 1), "--processes=None, --process=1: give"),
    ((None, 2, 0), "need --coordinator=HOST:PORT"),
    (("auto", None, 0), "need --coordinator=HOST:PORT"),
    (("node1", 2, 0), "--coordinator=node1, .* must be HOST:PORT"),
    (("node1:1234", 2, 2), "--process=2: processes are counted from 0"),
    (("none", 2, 0), "need --coordinator=HOST:PORT"),
  ],
)
def test_incomplete_flags_are_refused(given, said):
  with pytest.raises(UserError, match=said), hosts.join_hosts(*given):
    pass


@pytest.mark.parametrize(
  ("environment", "given", "joins"),
  [
    ({}, (None, None, None), None),
    ({"SLURM_STEP_NUM_TASKS": "1"}, (None, None, None), None),
    ({"SLURM_STEP_NUM_TASKS": "2"}, (None, None, None), {}),
    ({"OMPI_COMM_WORLD_SIZE": "8"}, (None, None, None), {}),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, (None, None, None), {}),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, (None, None, None), None),
    ({}, ("auto", None, None), {}),
    ({"SLURM_STEP_NUM_TASKS": "2"}, ("none", None, None), None),
    (
      {"SLURM_STEP_NUM_TASKS": "2"},
      ("node1:1234", 4, 3),
      {"coordinator_address": "node1:1234", "num_processes": 4, "process_id": 3},
    ),
  ],
)
def test_joins_others_where_flags_or_the_launcher_say_so(monkeypatch, environment, given, joins):
  for name in (*hosts._COUNT_VARIABLES, hosts._HOSTNAMES_VARIABLE):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  calls = []

  def initialize(**arguments):
    calls.append(arguments)
    raise RuntimeError("nobody there")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  if joins is None:
    with hosts.join_hosts(*given):
      pass
    assert not calls
  else:
    with (
      pytest.raises(UserError, match=r"did not come together \(nobody there\)"),
      hosts.join_hosts(*given),
    ):
      pass
    assert calls == [joins]


def test_a_process_alone_does_everything_itself(tmp_path):
  def failing():
    raise UserError("no")

  assert (hosts.count_processes(), hosts.is_primary()) == (1, True)
  assert hosts.run_on_primary(lambda x: {x}, 3) == {3}  # no JSON: nothing is sent
  with pytest.raises(UserError, match="no"):
    hosts.run_on_primary(failing)
  agreed = hosts.SignalAgreement()
  assert (agreed(None), agreed(15), agreed(2, now=True)) == (None, 15, 2)
  with pytest.raises(UserError, match=r"nothing: process 0 does not see it"):
    hosts.check_shared_path(tmp_path / "nothing")


def test_all_hosts_agree_on_a_signal_one_call_after_it_was_sent(monkeypatch):
  """On one host that is made to believe that it is one of two."""
  assert hosts.SignalAgreement()(15) == 15
  monkeypatch.setattr(hosts, "count_processes", lambda: 2)
  agreement = hosts.SignalAgreement()
  assert [agreement(number) for number in (None, 15, None, None)] == [None, None, 15, None]
  assert [agreement(number, now=True) for number in (None, 2, None)] == [None, 2, None]
