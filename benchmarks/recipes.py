"""The systems that benchmarks/systems.py trains, and what their papers report."""

from dataclasses import dataclass

REFERENCE = "attention_unet"  # the system that the others are tested against


@dataclass(frozen=True)
class System:
  """A row of the table.

  Attributes:
    name: as people call it.
    experiment: its file in `experiments/`, and variant.
    published: the scores that its paper reports, with the data set; (r): recalled from a later
      paper's table, not read in the paper.
    departs: what the recipe leaves out of its paper's, beside width, patch and optimiser.
    flags: what differs from the experiment.
  """

  name: str
  experiment: str
  published: str
  departs: str = ""
  flags: tuple[str, ...] = ()


SYSTEMS = {
  REFERENCE: System(
    "Attention U-Net",
    "pancreas.py:phantom",
    "CT-150: DSC 0.840, precision 0.849 (r), recall 0.841, surface distance 1.92 mm; "
    "Pancreas-CT, from scratch: 0.821, 0.815 (r), 0.835, 2.33 mm",
    "Dice + BCE for Dice alone",
  ),
  "unet": System(
    "U-Net",
    "pancreas.py:phantom",
    "CT-150: DSC 0.814, precision 0.848 (r), recall 0.806, surface distance 2.36 mm; "
    "Pancreas-CT, from scratch: 0.815 (r), 0.815 (r), 0.826 (r), 2.58 mm",
    "Dice + BCE for Dice alone",
    ("--config.model.name=unet",),
  ),
  "dual_attention": System(
    "Dual attention U-Net", "dual_attention.py:phantom", "composed here, no paper"
  ),
  "unet3d": System(
    "3D U-Net",
    "unet3d.py:phantom",
    "no pancreas; IoU 0.863 on the Xenopus kidney",
    "padded convolutions, no deformation",
  ),
  "vnet": System(
    "V-Net",
    "vnet.py:phantom",
    "no pancreas; DSC 0.869 (r) on PROMISE12's prostate",
    "Adam for SGD, no histogram matching, no deformation",
  ),
  "dense_vnet": System(
    "Dense V-Net",
    "dense_vnet.py:phantom",
    "median DSC 0.78 on 90 CT, eight organs together",
    "one organ, no prior, no channel dropout, every patch centred on the organ",
  ),
  "dense_dilated": System(
    "Dense dilated network",
    "dense_vnet.py:phantom",
    "median DSC 0.66 on 72 CT, four organs together",
    "as Dense V-Net",
    ("--config.model.name=dense_dilated",),
  ),
  "hnn": System(
    "HNN, first stage",
    "hnn.py:phantom",
    "DSC 0.768 (r) on Pancreas-CT",
    "random weights for ImageNet's, GroupNorm, the demo's augmentation",
  ),
  "hnn_stages": System(
    "HNN, both stages and forest",
    "hnn.py:phantom_stages",
    "DSC 0.813 (r) on Pancreas-CT",
    "as the first stage; each of nine trainings on as many patches, of 32^3",
  ),
  "pancreas_1mm": System(
    "Attention U-Net, 1 mm recipe",
    "pancreas_1mm.py:phantom",
    "ours, no paper",
    "3 mm for 1 mm, patches of 48^3 for 128^3",
  ),
}
