"""What a voxel of a painted patch may consist of: the organs' tissues, and what bowel holds.

Numbers stand for materials: those of `ALL_ORGANS` for the organs, and after them the contents of
hollow organs. A content is divided into stretches, which are filled independently of each other,
and each stretch into layers from the back of the body to its front, so that gas can lie above
fluid. Last come those that no map names: the fat between the viscera, and what is drawn into it and
into the pancreas in the step. With such numbers an image is a look-up in a table. Loads no JAX.
"""

from typing import NamedTuple

import numpy as np

from tfds_pancreas.abdomen.hollow import FAECES, HOLLOW_ORGANS
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.abdomen.tissues import PHASES, TISSUES, find_tissue

STRETCHES = 2
LAYER_ENDS_MM = (-4.0, 0.0, 4.0)  # heights over the middle of a loop at which layers meet
LAYERS = len(LAYER_ENDS_MM) + 1

NAMES = tuple(sorted(ALL_ORGANS, key=lambda name: ALL_ORGANS[name]))
# The organs that hold something, by the kind of hollow organ that they are.
HOLLOW = {name: kind for kind in HOLLOW_ORGANS for name in NAMES if kind.name in name}
FIRST_CONTENT = len(NAMES)
VISCERAL_FAT = FIRST_CONTENT + len(HOLLOW) * STRETCHES * LAYERS
# Drawn in the step: wall and content of loops of bowel, vessels, and a tumour and a wide duct.
LOOP_WALL, LOOP_CONTENT, VESSEL, LESION, DUCT = range(VISCERAL_FAT + 1, VISCERAL_FAT + 6)
NUM_MATERIALS = DUCT + 1


class OrganTable(NamedTuple):
  """The densities of the organs in HU, arrays over `NAMES`.

  Attributes:
    mean: by contrast phase, [P, N].
    sd: between patients, by contrast phase, [P, N].
    slow: sd within an organ of what varies over some 30 mm, [N].
    fine: the same over some 5 mm, [N].
    patient: index of the draw that decides an organ's density, [N]: both kidneys have the same.
    is_known: whether the density is the same in all patients, as that of air is, [N].
  """

  mean: np.ndarray
  sd: np.ndarray
  slow: np.ndarray
  fine: np.ndarray
  patient: np.ndarray
  is_known: np.ndarray


class ContentTable(NamedTuple):
  """The contents of hollow organs, arrays over `HOLLOW`.

  Attributes:
    organ: place of the organ in `NAMES`.
    collapsed: share of the stretches that hold nothing.
    gas: share of gas in the others, about.
    range: lowest and highest HU of what lies below the gas, [H, 2].
    takes_contrast: whether contrast agent that was drunk gets there.
    fine: sd within a stretch of what varies over some 5 mm.
  """

  organ: np.ndarray
  collapsed: np.ndarray
  gas: np.ndarray
  range: np.ndarray
  takes_contrast: np.ndarray
  fine: np.ndarray


def _tabulate_organs() -> OrganTable:
  densities = [TISSUES[find_tissue(name)] for name in NAMES]
  hu = np.array([density.hu for density in densities], np.float32)  # [N, P, 2]
  pairs = [name.removesuffix("_left").removesuffix("_right") for name in NAMES]
  return OrganTable(
    mean=hu[:, :, 0].T,
    sd=hu[:, :, 1].T,
    slow=np.array([density.slow for density in densities], np.float32),
    fine=np.array([density.fine for density in densities], np.float32),
    patient=np.array([pairs.index(name) for name in pairs]),
    is_known=(hu[:, :, 1] == 0).all(1),
  )


def _tabulate_contents() -> ContentTable:
  kinds = list(HOLLOW.values())
  is_faeces = np.array([kind.content is FAECES for kind in kinds])
  return ContentTable(
    organ=np.array([ALL_ORGANS[name] for name in HOLLOW]),
    collapsed=np.array([kind.collapsed for kind in kinds], np.float32),
    gas=np.array([kind.gas for kind in kinds], np.float32),
    range=np.array([kind.content for kind in kinds], np.float32),
    takes_contrast=~is_faeces,
    fine=np.where(is_faeces, 60, 8).astype(np.float32),
  )


ORGANS = _tabulate_organs()
CONTENTS = _tabulate_contents()
PHASE_SHARES = np.array(list(PHASES.values()), np.float32)


def content_number(organ: str, stretch: int, layer: int) -> int:
  """Returns the number of a hollow organ's content: of a layer, 0 at the back, in a stretch."""
  return FIRST_CONTENT + (list(HOLLOW).index(organ) * STRETCHES + stretch) * LAYERS + layer
