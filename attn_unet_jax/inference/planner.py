"""Chooses the plan of a scan's windows: by the network, its memory and the patient's body."""

import math
from collections.abc import Callable

import jax
from flax import linen as nn

from attn_unet_jax.inference.body import find_body
from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.plan import (
  MOST_VOXELS,
  Shape,
  WindowPlan,
  is_worthwhile,
  plan_large,
  plan_patches,
)
from attn_unet_jax.patches.batch import output_shape
from attn_unet_jax.runtime.memory import free_bytes
from attn_unet_jax.volumes.box import Slices
from attn_unet_jax.volumes.volume import Volume

_PART_OF_MEMORY = 0.8  # of what is free: other programs, and scans that are read, need some too


class WindowPlanner:
  """Plans the windows of each scan.

  With `inference.window=patch` they are patches, over the whole scan. Else they lie within the body
  where that saves a tenth at least, and are as large as memory allows if the network says the same
  in every window (`answer_depends_on` is `surroundings`), or, with `large`, if only the padding at
  their borders tells them apart (`borders`).

  Attributes:
    unit: a multiple of which windows start, along each axis.
  """

  def __init__(self, recipe: PredictionRecipe, module: nn.Module):
    self._inference, self._patch = recipe.inference, recipe.window
    self._margin: Shape = module.output_margin
    self._multiple: Shape = module.patch_multiple
    self._overlap = recipe.inference.overlap
    # A network that says nothing of it may depend on the size of its window.
    depends_on = getattr(module, "answer_depends_on", "window")
    # Windows of a size that was asked for keep it.
    grows = self._inference.window != "patch" and not any(self._inference.patch)
    # Pooling joins the same voxels only where windows start at multiples of its unit: answers are
    # then equal in all windows, and need no overlap.
    self._is_aligned = grows and depends_on == "surroundings"
    asked = self._inference.window == "large" and depends_on == "borders"
    self._is_large = self._is_aligned or (grows and asked)
    self.unit: Shape = self._multiple if self._is_aligned else (1, 1, 1)
    self._most_voxels = MOST_VOXELS

  def plan_scan(
    self, volume: Volume, compile_window: Callable[[Shape], int]
  ) -> tuple[Slices, WindowPlan]:
    """Returns the part of a scan that is looked at, and its windows.

    Args:
      volume: the scan on its working grid, HU.
      compile_window: compiles the network for a window and returns the bytes that it takes.
    """
    x, y, z = volume.shape
    part = whole = (slice(0, x), slice(0, y), slice(0, z))
    if self._inference.window != "patch":
      part = self._round_start(find_body(volume))
    while True:
      # In a loop, since the limit that memory sets changes both plans, and which of them is better.
      plan, of_whole = self._plan_part(part), self._plan_part(whole)
      if not is_worthwhile(plan, of_whole):
        part, plan = whole, of_whole
      needed, free = compile_window(plan.window), _free_device_bytes()
      fits = needed <= free or not self._is_large
      smaller = plan if fits else self.plan_smaller(part, plan, free / needed)
      # Nothing smaller is allowed: whether this one fits is seen when it is computed.
      if smaller.window == plan.window:
        return part, plan

  def plan_smaller(self, part: Slices, plan: WindowPlan, share: float = 0.5) -> WindowPlan:
    """Returns windows of at most a share of the voxels, now and for later scans.

    They are the same again where no smaller ones are allowed.
    """
    if self._is_large:
      self._most_voxels = int(math.prod(plan.window) * share)
    return self._plan_part(part)

  def find_least_extent(self, plan: WindowPlan) -> Shape:
    """Returns what a smaller scan is padded to by its minimum, as in training: to a window."""
    return output_shape(self._patch, self._margin) if self._is_aligned else plan.inner

  def _round_start(self, part: Slices) -> Slices:
    x, y, z = (
      slice(where.start // step * step, where.stop)
      for where, step in zip(part, self.unit, strict=True)
    )
    return x, y, z

  def _plan_part(self, part: Slices) -> WindowPlan:
    x, y, z = (where.stop - where.start for where in part)
    extent, overlap = (x, y, z), self._overlap
    if not self._is_large:
      return plan_patches(extent, self._patch, self._margin, overlap)
    return plan_large(
      extent,
      self._patch,
      self._margin,
      self._multiple,
      overlap,
      self._most_voxels,
      aligned=self._is_aligned,
    )


def _free_device_bytes() -> float:
  """Returns what a window may take of the memory of the device that computes it."""
  # A CPU has no statistics of its own: its memory is the host's.
  held: dict[str, int] = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" in held:
    return _PART_OF_MEMORY * (held["bytes_limit"] - held.get("bytes_in_use", 0))
  return _PART_OF_MEMORY * free_bytes()
