"""One window of Attention U-Net in JAX and in OpenVINO, and in PyTorch where that is, in turn.

  python -m benchmarks.engines --patch=64 --output=benchmarks/results/engines.json

`speed_up` is against the first contender, ours in JAX. `first_s` is the time from the network's
values to the first answer: JAX compiles without its cache, OpenVINO's network is written as ONNX
before. bfloat16 runs where the processor has it. `difference` is that of the probabilities from
JAX's. The machine should be quiet: `load_before` says how busy it was.
"""

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from attn_unet_jax.inference.onnx_window import draw_windows, write_onnx_window
from attn_unet_jax.inference.openvino_engine import OpenVinoEngine, Precision
from attn_unet_jax.inference.sliding import Shape, SlidingWindow
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from benchmarks.contenders import Work, compare, digits
from benchmarks.drawn_network import draw_system
from benchmarks.result import keep, machine

_PATCH = flags.DEFINE_integer("patch", 64, "edge of the cubic window, in voxels")
_NETWORK = flags.DEFINE_enum("network", "attention_unet", list(NETWORKS), "what is computed")
_REPEATS = flags.DEFINE_integer("repeats", 7, "timed calls of each, in turn")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")


def open_engine(system: SlidingWindow, precision: Precision) -> OpenVinoEngine | None:
  """OpenVINO's engine of a network; none where the processor does not have the type."""

  def write(window: Shape) -> bytes:
    return write_onnx_window(
      [system], window, uses_statistics=False, extra="cpu", needed_by="this benchmark"
    )

  try:
    return OpenVinoEngine(write, precision, uses_statistics=False)
  except UserError as error:
    print(error)
    return None


def main(argv: list[str]) -> None:
  """Compare, print and write."""
  del argv
  window = (_PATCH.value,) * 3
  system, hu = draw_system(_NETWORK.value, window), draw_windows(window, 1)[0]

  def compute_in_jax() -> np.ndarray:
    return np.asarray(system.window(system.variables, hu, 0.0, 1.0))

  calls: dict[str, Callable[[], np.ndarray]] = {"jax": compute_in_jax}
  precisions: tuple[Precision, ...] = ("float32", "bfloat16")
  for precision in precisions:
    if engine := open_engine(system, precision):
      calls[f"openvino_{precision}"] = functools.partial(engine.predict, hu, 0.0, 1.0)
  first, answers = dict[str, float](), dict[str, Any]()
  for name, call in calls.items():
    began = time.perf_counter()
    answers[name] = call()
    first[name] = digits(time.perf_counter() - began)
  works = {name: Work(call, lambda: None) for name, call in calls.items()}
  if _NETWORK.value == "attention_unet" and importlib.util.find_spec("torch"):
    from benchmarks import torch_workloads

    images, labels = hu[None, ..., None], np.zeros((1, *window), np.float32)
    theirs = torch_workloads.workloads("torch_channels_last", images, labels)
    works["torch_channels_last"] = theirs["inference"]
  figures = compare(works, _REPEATS.value, None)
  for name in calls:
    figures[name]["first_s"] = first[name]
    figures[name]["difference"] = digits(float(np.abs(answers[name] - answers["jax"]).max()))
  found = {"machine": machine(), "network": _NETWORK.value, "window": window, "engines": figures}
  keep(found, _OUTPUT.value)


if __name__ == "__main__":
  enable_huge_pages()  # as the commands of the program do
  app.run(main)
