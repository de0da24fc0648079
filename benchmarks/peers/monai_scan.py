"""Segments a scan by MONAI with the released network, as our `predict` does with ours.

  python -m benchmarks.peers.monai_scan SCAN MASK

It reads the file, resamples to 2 mm, takes windows of 160 x 160 x 96 that overlap by half, brings
the scores back to the scan's own grid, and writes the mask: the steps of MONAI's own tutorials.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import (
  Compose,
  EnsureChannelFirstd,
  Invertd,
  LoadImaged,
  NormalizeIntensityd,
  Orientationd,
  SaveImaged,
  Spacingd,
)

from benchmarks.torch_twin import TorchTwin

WINDOW, OVERLAP, SPACING_MM = (160, 160, 96), 0.5, 2.0


def main() -> None:
  """Reads, segments and writes."""
  scan, mask = sys.argv[1:]
  read = Compose(
    [
      LoadImaged("image"),
      EnsureChannelFirstd("image"),
      Orientationd("image", axcodes="RAS", labels=None),
      Spacingd("image", pixdim=(SPACING_MM,) * 3, mode="bilinear"),
      NormalizeIntensityd("image"),
    ]
  )
  network = TorchTwin(classes=2, gates=2).eval().to(memory_format=torch.channels_last_3d)
  case = read({"image": scan})
  with torch.inference_mode():
    case["scores"] = sliding_window_inference(
      case["image"][None].contiguous(), WINDOW, 1, network, overlap=OVERLAP, mode="gaussian"
    )[0]
  case["scores"] = MetaTensor(case["scores"].as_tensor(), meta=case["image"].meta)
  case = Invertd("scores", transform=read, orig_keys="image", nearest_interp=False)(case)
  case["mask"] = case["scores"].argmax(0, keepdim=True).to(torch.uint8)
  path = Path(mask)
  path.parent.mkdir(parents=True, exist_ok=True)
  SaveImaged("mask", output_dir=path.parent, output_postfix=path.name.partition(".")[0],
             output_dtype=np.uint8, separate_folder=False, print_log=False)(case)  # fmt: skip


if __name__ == "__main__":
  main()
