r"""Attention U-Net with our convolution form, with XLA's own, and in PyTorch, in one run.

  python -m benchmarks.network_speed --patch=64 --output=benchmarks/results/network_speed.json

It runs where JAX does, on a GPU if there is one:

  python -m benchmarks.network_speed --dtype=bfloat16 --patch=128 --batch=2 --repeats=15 \
    --torch=torch_compiled,torch_channels_last --output=benchmarks/results/network_speed_gpu.json

`speed_up` is against the first contender, our network with XLA's own convolution (`native`).
PyTorch's rows need the extra 'bench', on a GPU a PyTorch for it. `tflop` is the work in the direct
form, as XLA counts it, and `tflop_per_s` that over the median time: what is reached of the device's
peak. `memory_gib` is what a work holds at its peak, ours by XLA's plan of the program, PyTorch's by
its allocator, which knows a GPU's alone.

`tf32` says whether float32 may be rounded to TF32 in a GPU's convolutions and matrix products. It
may, as is JAX's default, unless JAX_DEFAULT_MATMUL_PRECISION=highest; PyTorch is told the same.
"""

import importlib.util
import os
import sys
from importlib import metadata
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from attn_unet_jax.models.ops.conv import Form
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from attn_unet_jax.runtime.xla import keep_channels_last
from benchmarks import jax_workloads
from benchmarks.contenders import Work, compare, digits
from benchmarks.result import keep, machine

DTYPES = ["float32", "bfloat16"]
FORMS: tuple[Form, ...] = ("native", "auto")

_PATCH = flags.DEFINE_integer("patch", 64, "edge of the cubic patch, in voxels")
_BATCH = flags.DEFINE_integer("batch", 1, "patches per step")
_DTYPE = flags.DEFINE_enum("dtype", "float32", DTYPES, "compute type of all; bfloat16: autocast's")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs of each form, in turn")
_TORCH = flags.DEFINE_list("torch", "torch,torch_channels_last", "PyTorch variants to time")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")


def all_works(images: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Work]]:
  """Every contender's work, ours first."""
  ours = {
    str(form): jax_workloads.workloads(form, images, labels, dtype=_DTYPE.value) for form in FORMS
  }
  if not _TORCH.value or importlib.util.find_spec("torch") is None:
    return ours
  from benchmarks import torch_workloads

  tf32 = allows_tf32()
  if tf32 is not None:
    torch_workloads.prepare_gpu(tf32=tf32)
  options = {"device": "cpu" if tf32 is None else "cuda", "dtype": _DTYPE.value}
  theirs = {
    name: torch_workloads.workloads(name, images, labels, **options) for name in _TORCH.value
  }
  return ours | theirs


def allows_tf32() -> bool | None:
  """Whether JAX, and so PyTorch, may round float32 to TF32; None where there is no GPU."""
  if jax.default_backend() in ("cpu", "tpu"):
    return None
  settings: Any = jax.config
  return settings.jax_default_matmul_precision not in ("highest", "float32")


def versions() -> dict[str, Any]:
  """Of what is compared, and the device that it ran on."""
  torch = metadata.version("torch") if importlib.util.find_spec("torch") else None
  return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "torch": torch}


def main(argv: list[str]) -> None:
  """Compare, print and write."""
  del argv
  logging.set_verbosity(logging.WARNING)
  keep_channels_last()
  # JAX would take three quarters of a GPU's memory at once, and leave PyTorch the rest.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  draw = np.random.default_rng(0)
  shape = (_BATCH.value,) + (_PATCH.value,) * 3
  images = draw.normal(size=(*shape, 1)).astype(np.float32)
  labels = (draw.random(shape) < 0.1).astype(np.float32)
  works, tflop = all_works(images, labels), jax_workloads.tflop(images.shape)
  result: dict[str, Any] = {
    "machine": machine() | versions(),
    "environment": describe_environment(),
    "patch": _PATCH.value,
    "batch": _BATCH.value,
    "dtype": _DTYPE.value,
    "tf32": allows_tf32(),
    "tflop": {work: count and digits(count) for work, count in tflop.items()},
  }
  for work, count in tflop.items():
    mine = {name: works[name][work] for name in works}
    result[work] = compare(mine, _REPEATS.value, count)
    print(f"{work}: {result[work]}", file=sys.stderr, flush=True)  # the next takes minutes too
  keep(result, _OUTPUT.value)


if __name__ == "__main__":
  enable_huge_pages()  # as the commands of the program do
  app.run(main)
