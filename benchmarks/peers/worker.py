"""A process that does one contender's work on a patch when it is asked; see `turns`.

  python -m benchmarks.peers.worker WORK LIBRARY DTYPE LAYOUT PATCH

Each line on its input is answered by a line with a mark on its output: `go` by the seconds of a
call that follows one that is not timed, `end` by the peak of its memory.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from attn_unet_jax.models.ops.conv import Form
from benchmarks.peers.turns import MARK, read_peak


def draw_patch(edge: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws an image [1, X, Y, Z, 1] and labels [1, X, Y, Z]; never zeros, which some would skip."""
  draw = np.random.default_rng(0)
  shape = (1, edge, edge, edge)
  images = draw.normal(size=(*shape, 1)).astype(np.float32)
  return images, (draw.random(shape) < 0.1).astype(np.float32)


def make_ours(work: str, dtype: str, layout: str, edge: int) -> tuple[Callable[[], Any], str]:
  """Makes a work of our network ready, compiled by XLA; and says by which version."""
  del layout
  return _make_form("auto", work, dtype, edge)


def make_onednn(work: str, dtype: str, layout: str, edge: int) -> tuple[Callable[[], Any], str]:
  """Makes a work of our network ready whose convolutions are oneDNN's."""
  del layout
  return _make_form("onednn", work, dtype, edge)


def _make_form(form: Form, work: str, dtype: str, edge: int) -> tuple[Callable[[], Any], str]:
  import jax

  from benchmarks import jax_workloads

  name = "train_step" if work == "training_step" else "inference"
  works = jax_workloads.workloads(form, *draw_patch(edge), dtype=dtype, names=[name])
  return works[name].call, f"jax {jax.__version__}"


def make_openvino(work: str, dtype: str, layout: str, edge: int) -> tuple[Callable[[], Any], str]:
  """Makes a prediction of our network in OpenVINO ready.

  Raises:
    UserError: the processor does not have the type.
    ValueError: another work, which OpenVINO does not do.
  """
  del layout
  if work != "inference":
    raise ValueError(f"OpenVINO does no {work}")
  from importlib import metadata

  from attn_unet_jax.inference.onnx_window import write_onnx_window
  from attn_unet_jax.inference.openvino_engine import OpenVinoEngine, Precision
  from attn_unet_jax.inference.sliding import Shape
  from benchmarks.drawn_network import draw_system

  system = draw_system("attention_unet", (edge, edge, edge))

  def write(window: Shape) -> bytes:
    return write_onnx_window(
      [system], window, uses_statistics=False, extra="cpu", needed_by="this benchmark"
    )

  precision: Precision = "bfloat16" if dtype == "bfloat16" else "float32"
  engine = OpenVinoEngine(write, precision, uses_statistics=False)
  hu = draw_patch(edge)[0][0, ..., 0] * 100
  return lambda: engine.predict(hu, 0.0, 1.0), f"openvino {metadata.version('openvino')}"


def make_released(work: str, dtype: str, layout: str, edge: int) -> tuple[Callable[[], Any], str]:
  """Makes a work of the released network in PyTorch ready."""
  import torch

  from benchmarks import torch_workloads

  variants = {"default": "torch", "channels_last": "torch_channels_last"}
  variant = variants.get(layout, "torch_compiled")
  works = torch_workloads.workloads(variant, *draw_patch(edge), dtype=dtype)
  name = "train_step" if work == "training_step" else "inference"
  return works[name].call, f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def make_monai(work: str, dtype: str, layout: str, edge: int) -> tuple[Callable[[], Any], str]:
  """Makes a work of MONAI's AttentionUnet ready: another network, with fewer operations."""
  del layout
  import monai
  from monai.networks.nets import AttentionUnet

  from benchmarks import torch_workloads

  network = AttentionUnet(3, 1, 2, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2))
  works = torch_workloads.workloads(
    "torch_channels_last", *draw_patch(edge), network=network, dtype=dtype
  )
  name = "train_step" if work == "training_step" else "inference"
  return works[name].call, f"monai {monai.__version__}"


MAKERS = {
  "ours": make_ours,
  "onednn": make_onednn,
  "openvino": make_openvino,
  "released": make_released,
  "monai": make_monai,
}


def write_answer(**values: Any) -> None:
  """Writes a marked line."""
  print(f"\n{MARK}{json.dumps(values)}", flush=True)


def main() -> None:
  """Makes the work ready, and does it as often as it is asked."""
  work, library, dtype, layout, edge = sys.argv[1:]
  call, by = MAKERS[library](work, dtype, layout, int(edge))
  call()  # PyTorch compiles, and chooses its kernels, in its first
  write_answer(by=by, cores=len(os.sched_getaffinity(0)))
  for line in sys.stdin:
    if line.strip() == "end":
      write_answer(peak_gib=round(read_peak(), 2))
      break
    call()
    start = time.perf_counter()
    call()
    write_answer(seconds=time.perf_counter() - start)


if __name__ == "__main__":
  main()
