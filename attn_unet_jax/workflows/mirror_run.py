"""Test-time augmentation of a run: mirror images and scaled copies."""

import dataclasses
from collections.abc import Sequence

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.inference.mirrors import AXES, MirroredSystem, find_sided_classes
from attn_unet_jax.inference.scales import ScaledSystem
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.load_run import LoadedRun

_X = AXES.index("x")


def mirror_run(trained: LoadedRun, axes: Sequence[int]) -> LoadedRun:
  """Returns the run with predictions that are averaged over mirror images; no axes: the run.

  A line says how many predictions a scan takes, and another warns of mirror images that the
  training did not show the network.

  Raises:
    UserError: the scan would be mirrored from left to right, and a class is one side of the body.
  """
  if not axes:
    return trained
  names = "".join(AXES[axis] for axis in axes)
  if _X in axes and (sided := find_sided_classes(trained.classes)):
    raise UserError(
      f"--tta={names}: x mirrors left and right, which would take {sided[0]} for the other side's; "
      "leave x out"
    )
  # Every subset of the axes is one, the scan itself included.
  print_line(f"--tta={names}: {2 ** len(axes)} predictions a scan")
  unseen = "".join(AXES[axis] for axis in axes if not _has_flipped(trained, axis))
  if unseen:
    print_line(
      f"warning: --tta={names}: the run was not trained on scans mirrored along {unseen} "
      "(config.augment.flip), and may answer them worse; compare evaluate --part=validation with "
      "and without"
    )
  system = MirroredSystem(trained.system, axes)
  return dataclasses.replace(trained, system=system, mirrors=tuple(axes))


def scale_run(trained: LoadedRun, scales: Sequence[float]) -> LoadedRun:
  """Returns the run with predictions that are averaged over scaled copies; no scales: the run.

  A line says how many there are, and another warns of scales that the training did not show.
  """
  if not scales:
    return trained
  names = ",".join(f"{scale:g}" for scale in scales)
  print_line(f"--tta_scales={names}: {1 + len(scales)} predictions of each image")
  unseen = [scale for scale in scales if not _has_scaled(trained, scale)]
  if unseen:
    print_line(
      f"warning: --tta_scales={names}: the run was not trained on scans scaled by "
      f"{', '.join(f'{scale:g}' for scale in unseen)} (config.augment.scale, along all of "
      "scale_axes), and may answer them worse; compare evaluate --part=validation with and without"
    )
  system = ScaledSystem(trained.system, scales)
  return dataclasses.replace(trained, system=system, scales=tuple(scales))


def _has_flipped(trained: LoadedRun, axis: int) -> bool:
  # All, since each member of an ensemble answers for every mirror image.
  return all(config.augment.flip[axis] for config in trained.configs)


def _has_scaled(trained: LoadedRun, scale: float) -> bool:
  return all(_shows_scale(config.augment, scale) for config in trained.configs)


def _shows_scale(augment: Augmentation, scale: float) -> bool:
  """Returns whether patches show the body so many times as large along each axis."""
  low, high = augment.scale
  # The factor of a patch leads to its source: 1/2 shows the body twice as large.
  in_range = low <= 1 / scale <= high
  # A scaled copy is larger along each axis at once, as a patch is only with all of `scale_axes`.
  return in_range and all(augment.scale_axes) and augment.spatial_probability > 0
