"""The systems that benchmarks/systems.py trains, and what their papers report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
  """A row of the table.

  Attributes:
    name: as people call it.
    experiment: its file in `experiments/`, and variant.
    published: the DSC that its paper reports, with the data set.
    flags: what differs from the experiment.
  """

  name: str
  experiment: str
  published: str
  flags: tuple[str, ...] = ()


SYSTEMS = {
  "attention_unet": System(
    "Attention U-Net", "pancreas.py:phantom", "0.840 CT-150, 0.831 Pancreas-CT (fine-tuned)"
  ),
  "unet": System(
    "U-Net",
    "pancreas.py:phantom",
    "0.814 CT-150, 0.820 Pancreas-CT (fine-tuned)",
    ("--config.model.name=unet",),
  ),
  "dual_attention": System("Dual attention U-Net", "dual_attention.py:phantom", "composed here"),
  "unet3d": System("3D U-Net", "unet3d.py:phantom", "no pancreas; IoU 0.863 Xenopus kidney"),
  "vnet": System("V-Net", "vnet.py:phantom", "no pancreas; 0.869 PROMISE12 prostate"),
  "dense_vnet": System("Dense V-Net", "dense_vnet.py:phantom", "0.78 (median) 90 CT, 8 organs"),
  "dense_dilated": System(
    "Dense dilated network",
    "dense_vnet.py:phantom",
    "0.66 (median) 72 CT",
    ("--config.model.name=dense_dilated",),
  ),
  "hnn": System("HNN, first stage", "hnn.py:phantom", "0.768 Pancreas-CT"),
  "hnn_stages": System(
    "HNN, both stages and forest",
    "hnn.py:phantom_stages",
    "0.813 Pancreas-CT",
    ("--config.train.epochs=1", "--config.train.steps_per_epoch=71"),
  ),
  "pancreas_1mm": System("Attention U-Net, 1 mm recipe", "pancreas_1mm.py:phantom", "ours"),
}
