"""What can be set about patches: their size and order, the batch, and what of it is logged."""

from dataclasses import dataclass

from attn_unet_jax.augment.options import OKTAY_2018, Augmentation
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.runtime.options import FRACTION, POSITIVE, Options, one_of, option


@dataclass(frozen=True)
class PatchOptions(DataOptions):
  """The options of the data, with those of the patches that are cropped from it."""

  foreground_fraction: float = option(
    0.5, "Fraction of the patches that are centred on a foreground voxel.", FRACTION
  )
  cases_per_block: int = option(8, "Cases that are open at a time.", POSITIVE)
  patches_per_case: int = option(
    4, "Patches of a case before the next block of cases is opened.", POSITIVE
  )
  source: str = option(
    "auto",
    "Source of patches: resident (in device memory) or streaming; auto: by size.",
    one_of("auto", "resident", "streaming"),
  )


@dataclass(frozen=True)
class BatchOptions(Options):
  """Says how many patches make a batch, and on how many losses are logged."""

  batch_size: int = option(2, "Patches per step, over all devices.", POSITIVE)
  accumulate: int = option(
    1, "Micro-batches per step, one after the other; batch norm sees one at a time.", POSITIVE
  )
  loss_patches: int = option(8, "Fixed patches per part on which losses are logged.", POSITIVE)


@dataclass(frozen=True)
class PatchRecipe:
  """Everything that decides the patches of a step.

  Attributes:
    seed: of patches and augmentation.
    data: the data and how patches are cropped from it.
    augment: what is drawn at random for each patch.
    train: the batch.
  """

  seed: int = 0
  data: PatchOptions = PatchOptions()
  augment: Augmentation = OKTAY_2018
  train: BatchOptions = BatchOptions()
