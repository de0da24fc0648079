"""The record of the speed benchmark: rates, counted operations, and the compute type."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import contenders, jax_workloads
from benchmarks.contenders import Work
from tests.conftest import run_command

WORKS = ("train_step", "inference")


def test_figures_by_hand(monkeypatch):
  """Seconds by a clock that the work moves; a call's first time is longer and not counted."""
  now, calls = [0.0], {"ours": 0, "theirs": 0}
  monkeypatch.setattr(contenders.time, "perf_counter", lambda: now[0])

  def work(name, lasts, memory):
    def call():
      now[0] += lasts[calls[name] // 2] if calls[name] % 2 else 100.0
      calls[name] += 1

    return Work(call, lambda: memory)

  works = {"ours": work("ours", [2, 1, 4], 2**29), "theirs": work("theirs", [0.5, 8, 4], None)}
  found = contenders.compare(works, 3, 0.5)
  times = {"median_s": 2.0, "min_s": 1.0, "max_s": 4.0, "speed_up": 1.0}
  assert found["ours"] == times | {"memory_gib": 0.5, "tflop_per_s": 0.25}
  assert found["theirs"]["speed_up"] == 0.5
  assert found["theirs"]["memory_gib"] is None


def test_a_contender_that_fails_is_told_and_the_others_go_on():
  def fails():
    raise RuntimeError("out of memory")

  works = {"a": Work(fails, lambda: 1), "b": Work(lambda: None, lambda: None)}
  found = contenders.compare(works, 2, None)
  assert found["a"] == {"error": "RuntimeError: out of memory"}
  assert (list(found), found["b"]["speed_up"], found["b"]["tflop_per_s"]) == (["a", "b"], 1.0, None)


@pytest.mark.slow
def test_operations_are_those_of_the_convolutions():
  """By hand the 3x3x3 ones alone: along an axis of n voxels 3 n - 2 taps do not fall outside."""
  encoder = {16: [(1, 16), (16, 16)], 8: [(16, 32), (32, 32)], 4: [(32, 64), (64, 64)]}
  encoder |= {2: [(64, 128), (128, 128)], 1: [(128, 256), (256, 256)]}
  decoder = {16: [(48, 16), (16, 16)], 8: [(96, 32), (32, 32)], 4: [(192, 64), (64, 64)]}
  decoder |= {2: [(384, 128), (128, 128)]}
  by_hand = sum(
    2 * (3 * n - 2) ** 3 * inputs * outputs
    for part in (encoder, decoder)
    for n, convolutions in part.items()
    for inputs, outputs in convolutions
  )
  found = jax_workloads.tflop((1, 16, 16, 16, 1))
  assert by_hand < found["inference"] * 1e12 < 1.1 * by_hand
  assert 2.5 < found["train_step"] / found["inference"] < 3.2
  assert jax_workloads.tflop((2, 16, 16, 16, 1))["inference"] > 1.9 * found["inference"]


def test_operations_are_not_counted_without_a_cpu(monkeypatch):
  def none(**_):
    raise RuntimeError("Unknown backend cpu")

  monkeypatch.setattr(jax, "local_devices", none)
  assert jax_workloads.tflop((1, 16, 16, 16, 1)) == {"train_step": None, "inference": None}


@pytest.mark.slow
def test_bfloat16_reaches_the_network_and_stays_out_of_the_loss():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(1, 16, 16, 16, 1)).astype(np.float32)
  labels = (images[..., 0] > 1).astype(np.float32)

  def made(like):  # the network's own take ten times as long to draw
    fan_in = math.prod(like.shape[:-1])
    drawn = rng.normal(size=like.shape) * (2 / fan_in) ** 0.5
    return (drawn if like.ndim > 1 else np.ones(like.shape)).astype(np.float32)

  answers, variables = {}, None
  for dtype in ("float32", "bfloat16"):
    draw, works = jax_workloads.programs("native", dtype)
    variables = variables or jax.tree.map(made, jax.eval_shape(draw, images))
    answers[dtype] = np.asarray(jax.jit(works["inference"])(variables, images, labels))
    (loss, _), gradient = jax.eval_shape(works["train_step"], variables, images, labels)
    assert {x.dtype for x in jax.tree.leaves((variables, loss, gradient))} == {jnp.dtype("float32")}
  error = np.linalg.norm(answers["bfloat16"] - answers["float32"])
  assert 1e-4 < error / np.linalg.norm(answers["float32"]) < 5e-2


def test_pytorch_does_the_same_works_in_either_type():
  torch = pytest.importorskip("torch", reason="the extra 'bench' is not installed")
  from benchmarks import torch_workloads

  draw = np.random.default_rng(0)
  images = draw.normal(size=(2, 16, 16, 16, 1)).astype(np.float32)
  labels = (images[..., 0] > 1).astype(np.float32)
  answers, losses = {}, {}
  for dtype in ("float32", "bfloat16"):
    works = torch_workloads.workloads("torch_channels_last", images, labels, dtype=dtype)
    answers[dtype] = works["inference"].call()
    losses[dtype] = works["train_step"].call()
    assert works["inference"].memory() is None
  assert answers["bfloat16"].dtype == torch.bfloat16
  assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)


@pytest.mark.soak
def test_the_command_keeps_a_record(tmp_path):
  output = tmp_path / "speed.json"
  flags = ("--patch=16", "--repeats=1", "--dtype=bfloat16", "--torch=", f"--output={output}")
  done = run_command("benchmarks.network_speed", *flags, timeout=900)
  assert done.returncode == 0, done.stderr
  told = json.loads(output.read_text())
  assert told == json.loads(done.stdout)
  assert (told["patch"], told["batch"], told["dtype"], told["tf32"]) == (16, 1, "bfloat16", None)
  for work in WORKS:
    assert list(told[work]) == ["native", "auto"]
    for figures in told[work].values():
      assert figures["tflop_per_s"] == pytest.approx(
        told["tflop"][work] / figures["median_s"], rel=2e-3
      )
      assert 0.02 < figures["memory_gib"] < 1  # 24.6 MiB of it are parameters
