"""The work of `network_speed` done by the PyTorch twin: eager or compiled, in either layout."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import Work
from benchmarks.torch_twin import TorchTwin

VARIANTS = ("torch", "torch_channels_last", "torch_compiled")


def soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
  """As `benchmarks.jax_workloads.soft_dice_loss`; logits [N, 2, X, Y, Z], labels [N, X, Y, Z]."""
  foreground = torch.softmax(logits.float(), 1)[:, 1]
  overlap = (foreground * labels).sum()
  return 1 - 2 * overlap / (foreground.sum() + labels.sum())


def prepare_gpu(*, tf32: bool) -> None:
  """Lets cuDNN choose its kernels by the stopwatch, as XLA does.

  Args:
    tf32: whether convolutions and matrix products of float32 may be rounded to TF32.

  Raises:
    RuntimeError: this PyTorch sees no GPU.
  """
  if not torch.cuda.is_available():
    raise RuntimeError(
      f"JAX has a GPU and PyTorch {torch.__version__} sees none: install one for CUDA, or leave "
      "it out by --torch="
    )
  torch.backends.cudnn.benchmark = True
  torch.backends.cudnn.allow_tf32 = tf32
  torch.set_float32_matmul_precision("high" if tf32 else "highest")


def workloads(
  variant: str,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  network: Any = None,
  device: str = "cpu",
  dtype: str = "float32",
) -> dict[str, Work]:
  """A train step (gradients and new statistics) and a prediction, ready to call.

  Args:
    variant: one of `VARIANTS`; the compiled one has its channels last.
    images: [N, X, Y, Z, 1].
    labels: [N, X, Y, Z].
    network: of two classes, still on the host; None: the twin of the released one.
    device: `cpu` or `cuda`.
    dtype: `bfloat16` is autocast's; parameters and loss are float32 in both.
  """
  torch.manual_seed(0)
  network = TorchTwin(classes=2, gates=2) if network is None else network
  before = _measure_allocated(device)
  network = network.to(device)
  x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1))).to(device)
  y = torch.from_numpy(np.asarray(labels)).to(device)
  if variant != "torch":
    layout = torch.channels_last_3d
    network, x = network.to(memory_format=layout), x.contiguous(memory_format=layout)
  forward = torch.compile(network) if variant == "torch_compiled" else network
  own = _measure_allocated(device) - before

  def logits() -> Tensor:
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
      return forward(x)

  def train_step() -> float:
    network.train()
    loss = soft_dice_loss(logits(), y)
    loss.backward()
    value = loss.item()  # waits for the device
    network.zero_grad(set_to_none=True)  # now: not to lie beside the next contender's
    return value

  def inference() -> Tensor:
    network.eval()
    with torch.inference_mode():
      answer = logits()
    if device == "cuda":
      torch.cuda.synchronize()
    return answer

  return {
    "train_step": Work(train_step, lambda: _peak(train_step, device, own)),
    "inference": Work(inference, lambda: _peak(inference, device, own)),
  }


def _measure_allocated(device: str) -> int:
  return torch.cuda.memory_allocated() if device == "cuda" else 0


def _peak(call: Callable[[], Any], device: str, own: int) -> int | None:
  """Bytes at the peak of a call, without what other contenders hold; `own`: what this one holds."""
  if device != "cuda":
    return None
  others = torch.cuda.memory_allocated() - own
  torch.cuda.reset_peak_memory_stats()
  call()
  return torch.cuda.max_memory_allocated() - others
