"""Attention U-Net with our convolution form, with XLA's own, and in PyTorch, in one run.

  python -m benchmarks.network_speed --patch=64 --output=benchmarks/results/network_speed.json

`speed_up` is against XLA's own convolution; PyTorch's rows need the extra 'bench'.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from attn_unet_jax import models
from attn_unet_jax.models.conv import Form
from benchmarks.result import keep, machine

FORMS: tuple[Form, ...] = ("native", "auto")  # the first is the base of the ratios

_PATCH = flags.DEFINE_integer("patch", 64, "edge of the cubic patch, in voxels")
_BATCH = flags.DEFINE_integer("batch", 1, "patches per step")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs of each form, in turn")
_TORCH = flags.DEFINE_list("torch", "torch,torch_channels_last", "PyTorch variants to time")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")


def soft_dice_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """One minus the soft Dice of the foreground; logits [N, X, Y, Z, 2], labels [N, X, Y, Z]."""
  foreground = jax.nn.softmax(logits)[..., 1]
  overlap = jnp.sum(foreground * labels)
  return 1 - 2 * overlap / (jnp.sum(foreground) + jnp.sum(labels))


def workloads(form: Form, images: jax.Array, labels: jax.Array) -> dict[str, Callable[[], Any]]:
  """A train step (gradients and new statistics) and a prediction, compiled and ready to call."""
  network = models.build("attention_unet", conv=form)
  variables = network.lazy_init(jax.random.key(0, impl="rbg"), images, train=False)
  statistics_ = variables["batch_stats"]

  def loss(params: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    state = {"params": params, "batch_stats": statistics_}
    (logits, _), updates = network.apply(state, images, True, mutable=["batch_stats"])
    return soft_dice_loss(logits, labels), updates

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  predict = jax.jit(lambda variables, images: network.apply(variables, images, False)[0])
  return {
    "train_step": lambda: step(variables["params"], images, labels),
    "inference": lambda: predict(variables, images),
  }


def seconds(work: Callable[[], Any]) -> float:
  """Wall time of one call, until its results are there."""
  start = time.perf_counter()
  jax.block_until_ready(work())
  return time.perf_counter() - start


def compare(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
  """Time every form in turn, so that a busy machine slows them alike; ratios of medians.

  Each time after a call of its own that is not timed (the first compiles), as in a training: a
  system that gave its free pages to another machine meanwhile would let whoever comes after a long
  pause wait for them.
  """
  times: dict[str, list[float]] = {form: [] for form in works}
  for _ in range(repeats):
    for form, work in works.items():
      seconds(work)
      times[form].append(seconds(work))
  base = statistics.median(times[next(iter(times))])
  return {
    form: {
      "median_s": round(statistics.median(t), 4),
      "min_s": round(min(t), 4),
      "max_s": round(max(t), 4),
      "speed_up": round(base / statistics.median(t), 2),
    }
    for form, t in times.items()
  }


def all_works(images: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Callable[[], Any]]]:
  """Every contender's work, ours first."""
  ours: dict[str, dict[str, Callable[[], Any]]] = {
    form: workloads(form, jnp.asarray(images), jnp.asarray(labels)) for form in FORMS
  }
  if importlib.util.find_spec("torch") is None:
    return ours
  from benchmarks import torch_workloads

  theirs = {name: torch_workloads.workloads(name, images, labels) for name in _TORCH.value}
  return ours | theirs


def versions() -> dict[str, Any]:
  """Of what is compared, and the device that it ran on."""
  torch = metadata.version("torch") if importlib.util.find_spec("torch") else None
  return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "torch": torch}


def main(argv: list[str]) -> None:
  """Compare, print and write."""
  del argv
  logging.set_verbosity(logging.WARNING)
  draw = np.random.default_rng(0)
  shape = (_BATCH.value,) + (_PATCH.value,) * 3
  images = draw.normal(size=(*shape, 1)).astype(np.float32)
  labels = (draw.random(shape) < 0.1).astype(np.float32)
  works = all_works(images, labels)
  result: dict[str, Any] = {
    "machine": machine() | versions(),
    "patch": _PATCH.value,
    "batch": _BATCH.value,
  }
  for work in ("train_step", "inference"):
    result[work] = compare({name: works[name][work] for name in works}, _REPEATS.value)
  keep(result, _OUTPUT.value)


if __name__ == "__main__":
  app.run(main)
