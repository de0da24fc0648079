"""Trains the released network by MONAI's loader and transforms, and says how long a step takes.

  python -m benchmarks.peers.monai_training FOLDER STEPS

Two patches of 64^3 a step, cropped anywhere, flipped, turned, stretched and shifted; the scans are
resampled once and kept in memory, two processes augment. As our recipe: soft Dice, Adam at 1e-4.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceLoss
from monai.transforms import (
  Compose,
  EnsureChannelFirstd,
  LoadImaged,
  NormalizeIntensityd,
  RandAffined,
  RandFlipd,
  RandSpatialCropd,
)

from benchmarks.peers.turns import MARK_STEP
from benchmarks.torch_twin import TorchTwin

PATCH, BATCH, WORKERS, UNTIMED = (64, 64, 64), 2, 2, 3
_KEYS = ("image", "label")


def open_loader(folder: Path, steps: int) -> Any:
  """Opens a loader of so many batches."""
  names = sorted(path.name for path in (folder / "imagesTr").iterdir())
  files = [
    {"image": str(folder / "imagesTr" / name), "label": str(folder / "labelsTr" / name)}
    for name in names
  ]
  turn = np.pi / 12
  transform = Compose(
    [
      LoadImaged(_KEYS),
      EnsureChannelFirstd(_KEYS),
      NormalizeIntensityd("image"),
      RandSpatialCropd(_KEYS, PATCH, random_size=False),
      *(RandFlipd(_KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
      RandAffined(
        _KEYS, prob=1.0, rotate_range=(0, 0, turn), scale_range=(0.3,) * 3,
        translate_range=(10,) * 3, mode=("bilinear", "nearest"), padding_mode="zeros",
      ),
    ]
  )  # fmt: skip
  cases = CacheDataset(files, transform, progress=False)
  drawn = torch.utils.data.RandomSampler(cases, replacement=True, num_samples=BATCH * steps)
  return DataLoader(
    cases, batch_size=BATCH, sampler=drawn, num_workers=WORKERS, persistent_workers=True
  )


def time_steps(loader: Any) -> Iterator[float]:
  """Yields the seconds of each step, its batch included."""
  layout = torch.channels_last_3d
  network = TorchTwin(classes=2, gates=2).train().to(memory_format=layout)
  optimizer = torch.optim.Adam(network.parameters(), 1e-4)
  loss_of = DiceLoss(softmax=True, to_onehot_y=True)
  start = time.perf_counter()
  for batch in loader:
    images = batch["image"].as_tensor().contiguous(memory_format=layout)
    loss = loss_of(network(images), batch["label"].as_tensor())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    loss.item()
    yield time.perf_counter() - start
    start = time.perf_counter()


def main() -> None:
  """Trains, and prints the median of the timed steps."""
  folder, steps = Path(sys.argv[1]), int(sys.argv[2])
  seconds = list(time_steps(open_loader(folder, steps + UNTIMED)))[UNTIMED:]
  print(f"{MARK_STEP}{statistics.median(seconds)}")


if __name__ == "__main__":
  main()
