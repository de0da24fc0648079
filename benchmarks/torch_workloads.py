"""The work of `network_speed` done by the PyTorch twin: eager or compiled, in either layout."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.torch_twin import TorchTwin

VARIANTS = ("torch", "torch_channels_last", "torch_compiled")


def soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
  """As `benchmarks.network_speed.soft_dice_loss`; logits [N, 2, X, Y, Z], labels [N, X, Y, Z]."""
  foreground = torch.softmax(logits, 1)[:, 1]
  overlap = (foreground * labels).sum()
  return 1 - 2 * overlap / (foreground.sum() + labels.sum())


def workloads(variant: str, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Any]]:
  """A train step (gradients and new statistics) and a prediction, ready to call.

  Args:
    variant: one of `VARIANTS`; the compiled one has its channels last.
    images: [N, X, Y, Z, 1].
    labels: [N, X, Y, Z].
  """
  torch.manual_seed(0)
  network: Any = TorchTwin(classes=2, gates=2)
  x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
  y = torch.from_numpy(np.asarray(labels))
  if variant != "torch":
    layout = torch.channels_last_3d
    network, x = network.to(memory_format=layout), x.contiguous(memory_format=layout)
  forward = torch.compile(network) if variant == "torch_compiled" else network

  def train_step() -> float:
    network.train()
    network.zero_grad(set_to_none=True)
    loss = soft_dice_loss(forward(x), y)
    loss.backward()
    return loss.item()

  def inference() -> Tensor:
    network.eval()
    with torch.inference_mode():
      return forward(x)

  return {"train_step": train_step, "inference": inference}
