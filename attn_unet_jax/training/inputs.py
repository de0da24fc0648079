"""Opens the inputs of a training: its source of patches, and the fixed patches of the losses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from attn_unet_jax.cases.cache import remove_left_over
from attn_unet_jax.cases.joined_cases import CaseSequence, count_also, take_maps
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.prepare_ahead import prepare_ahead
from attn_unet_jax.labels import is_foreground
from attn_unet_jax.patches.batch import (
  NetworkInput,
  crop_fixed_batches,
  make_training_cropper,
  mixes_maps,
  output_shape,
)
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.padded_case import Shape, padding_width
from attn_unet_jax.patches.sources import PatchSource, ResidentSource, choose_source
from attn_unet_jax.patches.streaming_source import StreamingSource
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.mesh import num_microbatches_on_one_device, replicate
from attn_unet_jax.training.nonfinite import PatchLocations
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.placement import plan_placement

PARTS = ("training", "validation", "test")
CaseLoader = Callable[[str], CaseSequence]


class TrainingInputs(NamedTuple):
  """The inputs of a training.

  Attributes:
    source: the source of the patches of every step.
    streamed: whether the source streams the patches, or keeps the training set on the devices.
    fixed: batches without augmentation by part of the fold; empty on all hosts but the primary.
    locate_patches: returns where the patches of a step, numbered from 1, came from.
  """

  source: PatchSource
  streamed: bool
  fixed: dict[str, list[NetworkInput]]
  locate_patches: Callable[[int], PatchLocations]


def open_inputs(
  recipe: TrainingRecipe, module: nn.Module, load: CaseLoader, workdir: Path
) -> TrainingInputs:
  """Opens the source of patches that it chooses, prints why, and crops the fixed patches.

  With several hosts the primary host chooses. Each host reads the cases of its own patches: with
  the resident source the whole training set, with the streaming source its part of each batch.

  Args:
    recipe: the options of the training.
    module: the network.
    load: returns the cases of a part of the fold.
    workdir: the run, which keeps prepared scans if the source streams them.

  Raises:
    UserError: a case cannot be used.
  """
  loaded = {part: load(part) for part in PARTS}
  if recipe.painting.enabled:
    # The other parts keep the images that are stored: they are scored on these.
    loaded["training"] = take_maps(loaded["training"])
  chosen, why = hosts.run_on_primary(choose_source, recipe.data, loaded["training"])
  print_line(why)
  cases = {part: _cache_cases(recipe, loaded[part], chosen, workdir) for part in PARTS}
  margin = module.output_margin
  extent = output_shape(recipe.data.patch, margin)
  cutter = make_training_cropper(recipe, cases["training"], margin)
  training: Sequence[WorkingCase] = cases["training"]
  also = count_also(training)  # the list that the resident source makes of the cases cannot tell
  source: PatchSource
  if chosen == "resident":
    # Read once: the resident set and the fixed patches need them in memory.
    ahead = prepare_ahead(training)
    training = list(show_progress(ahead, len(training), "preparing the training cases"))
    # Only histogram matching reads the histograms of the scans.
    matched = recipe.augment.histogram_probability > 0
    resident_set = make_resident(training, extent, histograms=matched, also=also)
    source = ResidentSource(replicate(recipe, resident_set))
  else:
    source = StreamingSource(cutter, *plan_placement(recipe))
  cases_by_part, num_parts = {**cases, "training": training}, num_microbatches_on_one_device(recipe)
  # The primary host measures the losses, on one device: in parts, to fit its memory.
  fixed = {
    part: crop_fixed_batches(
      recipe,
      cases_by_part[part],
      margin,
      num_parts,
      mixed=part == "training" and mixes_maps(recipe),
      also=also if part == "training" else 0,
    )
    for part in PARTS
    if hosts.is_primary()
  }

  # With several hosts an error must end all of them.
  hosts.run_on_primary(_require_foreground, recipe, fixed.get("training", ()), training)

  def locate_patches(step: int) -> PatchLocations:
    """Returns where the patches of a step, numbered from 1, came from."""
    return [
      _locate_patch(cases["training"], *found, extent) for found in cutter.patch_corners(step - 1)
    ]

  return TrainingInputs(source, chosen == "streaming", fixed, locate_patches)


def _require_foreground(
  recipe: TrainingRecipe, patches: Sequence[NetworkInput], cases: Sequence[WorkingCase]
) -> None:
  """Checks that something is to be learnt.

  Args:
    recipe: the options of the training.
    patches: patches of the training cases, which are looked at first: they are in memory.
    cases: the training cases, of which as many are read as it takes to find a labelled voxel.

  Raises:
    UserError: no training case has a voxel of any class.
  """
  labels = (np.asarray(batch.label) for batch in patches)
  if any(is_foreground(label).any() for label in labels):
    return
  if not any(len(case.centres) for case in cases):
    raise UserError(
      f"config.data.labels={recipe.data.labels!r}: none of the {len(cases)} training cases has a "
      "voxel of it, so that the network would learn that there is no organ; attn_unet_jax.check "
      "counts the values in the labels"
    )


def _locate_patch(
  cases: CaseSequence, index: int, corner: tuple[int, ...], extent: Shape
) -> tuple[str, tuple[int, ...]]:
  """Returns the id of a patch's case and the patch's corner in the working grid of the scan.

  Args:
    cases: the training cases.
    index: the index of the case.
    corner: the corner in the padded case.
    extent: the patch size to which small cases are padded.
  """
  case_id = cases.ids[index]
  part = cases.case_slices(case_id)
  # A case may be a box of its scan, and is padded where it is smaller than the patch.
  added = padding_width(tuple(along.stop - along.start for along in part), extent)
  lowest = zip(corner, added, part, strict=True)
  return case_id, tuple(at - before + along.start for at, (before, _), along in lowest)


def _cache_cases(
  recipe: TrainingRecipe, cases: CaseSequence, chosen: str, workdir: Path
) -> CaseSequence:
  """Returns the cases, which keep a prepared copy on disk if they are to be read repeatedly."""
  # The resident source reads every case once, so a copy pays only if the recipe asks for one.
  if not recipe.data.prepared and chosen != "streaming":
    return cases
  folder = Path(recipe.data.prepared or workdir / "prepared")
  remove_left_over(folder)  # half-written files of killed processes
  return cases.cache_in(folder)
