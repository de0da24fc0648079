"""What a training reads: its source of patches, and the fixed patches that losses are logged on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flax import linen as nn

from attn_unet_jax.cases.cache import remove_left_over
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.patches.batch import (
  NetworkInput,
  crop_fixed_batches,
  make_training_cropper,
  output_shape,
)
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.padded_case import Shape, padding_width
from attn_unet_jax.patches.sources import PatchSource, ResidentSource, choose_source
from attn_unet_jax.patches.streaming_source import StreamingSource
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.training.mesh import num_microbatches_on_one_device, replicate
from attn_unet_jax.training.nonfinite import PatchLocations
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.placement import plan_placement

PARTS = ("training", "validation", "test")
CaseLoader = Callable[[str], WorkingCases]


class TrainingInputs(NamedTuple):
  """All that is read from the data.

  Attributes:
    source: feeds the steps.
    streamed: whether what it feeds is streamed.
    fixed: batches by part of the fold, not augmented; on the first host, none on the others.
    places: number of a step, from 1 -> where its patches came from.
  """

  source: PatchSource
  streamed: bool
  fixed: dict[str, list[NetworkInput]]
  locate_patches: Callable[[int], PatchLocations]


def open_inputs(
  recipe: TrainingRecipe, module: nn.Module, load: CaseLoader, workdir: Path
) -> TrainingInputs:
  """Chooses the source and says so, prepares what it needs, and cuts the fixed patches.

  Of several hosts the first chooses. A host reads what its own patches need: the resident source
  the whole training set, the streaming one the cases of its part of each batch.

  Args:
    recipe: what the training reads.
    module: the network.
    load: part of the fold -> its cases.
    workdir: the run, which keeps prepared scans if the source streams them.

  Raises:
    UserError: a case cannot be used.
  """
  chosen, why = hosts.run_on_primary(choose_source, recipe.data, load("training"))
  print_line(why)
  cases = {part: _cache_cases(recipe, load(part), chosen, workdir) for part in PARTS}
  margin = module.output_margin
  extent = output_shape(recipe.data.patch, margin)
  cutter = make_training_cropper(recipe, cases["training"], margin)
  training: Sequence[WorkingCase] = cases["training"]
  source: PatchSource
  if chosen == "resident":
    training = list(training)
    matched = recipe.augment.histogram_probability > 0
    held = make_resident(training, extent, histograms=matched)
    source = ResidentSource(replicate(recipe, held))
  else:
    source = StreamingSource(cutter, *plan_placement(recipe))
  of_part, parts = {**cases, "training": training}, num_microbatches_on_one_device(recipe)
  fixed = {
    part: crop_fixed_batches(recipe, of_part[part], margin, parts)
    for part in PARTS
    if hosts.is_primary()
  }

  def places(step: int) -> PatchLocations:
    return [_locate_patch(cases["training"], *found, extent) for found in cutter.corners(step - 1)]

  return TrainingInputs(source, chosen == "streaming", fixed, places)


def _locate_patch(
  cases: WorkingCases, index: int, corner: tuple[int, ...], extent: Shape
) -> tuple[str, tuple[int, ...]]:
  """A patch's case, and its corner, known in the padded case, in the whole scan's working grid."""
  case_id = cases.ids[index]
  part = cases.part(case_id)
  added = padding_width(tuple(along.stop - along.start for along in part), extent)
  lowest = zip(corner, added, part, strict=True)
  return case_id, tuple(at - before + along.start for at, (before, _), along in lowest)


def _cache_cases(
  recipe: TrainingRecipe, cases: WorkingCases, chosen: str, workdir: Path
) -> WorkingCases:
  """The cases, kept on disk where the recipe says so or they are to be read again and again."""
  if not recipe.data.prepared and chosen != "streaming":
    return cases
  folder = Path(recipe.data.prepared or workdir / "prepared")
  remove_left_over(folder)
  return cases.kept_in(folder)
