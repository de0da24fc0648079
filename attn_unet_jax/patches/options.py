"""The options of patches: their order and source, the batch, and the logged losses."""

from dataclasses import dataclass

from attn_unet_jax.augment.options import OKTAY_2018, Augmentation
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.painting.options import Painting
from attn_unet_jax.runtime.options import FRACTION, POSITIVE, Options, Rule, one_of, option

# With so many, up to 21,000 cases may be open at a time.
_COUNTED = Rule(
  "1 to 100000: the schedule counts the patches of all open cases in 32 bits",
  lambda value: 1 <= value <= 100_000,
)


@dataclass(frozen=True)
class PatchOptions(DataOptions):
  """The options of the data, with those of the patches that are cropped from it."""

  # The released code crops anywhere: experiments/pancreas.py sets 0.
  foreground_fraction: float = option(
    0.5, "Fraction of the patches that are centred on a foreground voxel.", FRACTION
  )
  # A streaming source decodes each scan once per block.
  cases_per_block: int = option(8, "Cases that are open at a time.", POSITIVE)
  patches_per_case: int = option(
    4, "Patches of a case before the next block of cases is opened.", _COUNTED
  )
  # `auto` is resident if the set needs at most a quarter of the device's memory.
  source: str = option(
    "auto",
    "Source of patches: resident (in device memory) or streaming; auto: by size.",
    one_of("auto", "resident", "streaming"),
  )


@dataclass(frozen=True)
class BatchOptions(Options):
  """The options of the batch, and the number of patches on which losses are logged."""

  batch_size: int = option(2, "Patches per step, over all devices.", POSITIVE)
  accumulate: int = option(
    1, "Micro-batches per step, one after the other; batch norm sees one at a time.", POSITIVE
  )
  loss_patches: int = option(8, "Fixed patches per part on which losses are logged.", POSITIVE)


@dataclass(frozen=True)
class PatchRecipe:
  """The options that decide the patches of a step.

  Attributes:
    seed: the seed of patches and augmentation.
    data: the data and how patches are cropped from it.
    augment: the random augmentation of each patch.
    train: the size of the batch.
    painting: the painting of images on label maps, where that is enabled.
  """

  seed: int = 0
  data: PatchOptions = PatchOptions()
  augment: Augmentation = OKTAY_2018
  train: BatchOptions = BatchOptions()
  painting: Painting = Painting()
