"""The reference's networks in PyTorch, written from the same specification as ours.

Module names are those of the reference code (ozan-oktay/Attention-Gated-Networks), so that a
`state_dict` of one fits the other. Tensors are [N, C, X, Y, Z]. For comparisons of values and of
speed; nothing of the package imports it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512, 1024)
ALIGN_CORNERS = True  # as PyTorch did before 0.4


def upsample(x: Tensor, size: torch.Size) -> Tensor:
  """Trilinear, by default with aligned corners."""
  return functional.interpolate(x, size=size[2:], mode="trilinear", align_corners=ALIGN_CORNERS)


def conv_norm_relu(inputs: int, outputs: int, size: int) -> nn.Sequential:
  """Convolution that keeps the grid, batch normalisation, ReLU."""
  conv = nn.Conv3d(inputs, outputs, size, padding=size // 2)
  return nn.Sequential(conv, nn.BatchNorm3d(outputs), nn.ReLU())


class Block(nn.Module):
  """Two 3x3x3 convolutions, each with batch normalisation and ReLU."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.conv1 = conv_norm_relu(inputs, outputs, 3)
    self.conv2 = conv_norm_relu(outputs, outputs, 3)

  def forward(self, x: Tensor) -> Tensor:
    """[N, inputs, X, Y, Z] to [N, outputs, X, Y, Z]."""
    return self.conv2(self.conv1(x))


class Up(nn.Module):
  """The decoder's step: the coarser map is upsampled and put behind the skip."""

  def __init__(self, coarse: int, skip: int):
    super().__init__()
    self.conv = Block(coarse + skip, skip)

  def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
    """Skip [N, C, X, Y, Z] and coarse [N, 2C, X/2, Y/2, Z/2] to [N, C, X, Y, Z]."""
    return self.conv(torch.cat([skip, upsample(coarse, skip.shape)], 1))


class Gate(nn.Module):
  """Additive attention gate (Oktay et al. 2018)."""

  def __init__(self, skip: int, gating: int):
    super().__init__()
    self.theta = nn.Conv3d(skip, skip, 2, stride=2, bias=False)
    self.phi = nn.Conv3d(gating, skip, 1)
    self.psi = nn.Conv3d(skip, 1, 1)
    self.W = nn.Sequential(nn.Conv3d(skip, skip, 1), nn.BatchNorm3d(skip))

  def forward(self, x: Tensor, g: Tensor) -> Tensor:
    """Gated skip features, of x's shape."""
    alpha = torch.sigmoid(self.psi(torch.relu(self.theta(x) + self.phi(g))))
    return self.W(upsample(alpha, x.shape) * x)


class Gates(nn.Module):
  """One gate or two on the same skip, combined to the skip's channels."""

  def __init__(self, skip: int, gating: int, gates: int):
    super().__init__()
    self.gates = [f"gate_block_{i + 1}" for i in range(gates)]
    for name in self.gates:
      self.add_module(name, Gate(skip, gating))
    self.combine_gates = conv_norm_relu(skip * gates, skip, 1)

  def forward(self, x: Tensor, g: Tensor) -> Tensor:
    """Gated skip features, of x's shape."""
    return self.combine_gates(torch.cat([getattr(self, name)(x, g) for name in self.gates], 1))


class Gating(nn.Module):
  """The bottleneck's gating signal."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv1 = conv_norm_relu(channels, channels, 1)

  def forward(self, x: Tensor) -> Tensor:
    """Of x's shape."""
    return self.conv1(x)


class Head(nn.Module):
  """Scores of a decoder level; the reference upsamples them in the same module."""

  def __init__(self, channels: int, classes: int):
    super().__init__()
    self.dsv = nn.Sequential(nn.Conv3d(channels, classes, 1))

  def forward(self, x: Tensor) -> Tensor:
    """Scores on the level's own grid."""
    return self.dsv(x)


class TorchTwin(nn.Module):
  """Attention U-Net with 1 or 2 gates a skip, or with 0 the U-Net; deep supervision in both."""

  def __init__(self, classes: int = 2, gates: int = 2, feature_scale: float = 4.0):
    super().__init__()
    f = [int(width / feature_scale) for width in _WIDTHS]
    self.gated = bool(gates)
    for level in (1, 2, 3, 4):
      self.add_module(f"conv{level}", Block(f[level - 2] if level > 1 else 1, f[level - 1]))
      self.add_module(f"up_concat{level}", Up(f[level], f[level - 1]))
      if gates and level > 1:
        self.add_module(f"attentionblock{level}", Gates(f[level - 1], f[level], gates))
      head = nn.Conv3d(f[0], classes, 1) if level == 1 else Head(f[level - 1], classes)
      self.add_module(f"dsv{level}", head)
    self.center = Block(f[3], f[4])
    if gates:
      self.gating = Gating(f[4])
    self.final = nn.Conv3d(4 * classes, classes, 1)

  def forward(self, x: Tensor) -> Tensor:
    """Logits [N, K, X, Y, Z] of images [N, 1, X, Y, Z]."""
    skips = []
    for level in (1, 2, 3, 4):
      x = getattr(self, f"conv{level}")(x)
      skips.append(x)
      x = functional.max_pool3d(x, 2)
    x = self.center(x)
    scores: list[Tensor] = []
    for level in (4, 3, 2, 1):
      skip = skips[level - 1]
      if self.gated and level > 1:
        skip = getattr(self, f"attentionblock{level}")(skip, self.gating(x) if level == 4 else x)
      x = getattr(self, f"up_concat{level}")(skip, x)
      scores.insert(0, upsample(getattr(self, f"dsv{level}")(x), skips[0].shape))
    return self.final(torch.cat(scores, 1))
