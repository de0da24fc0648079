"""Writes what is answered for one scan: its mask, and what the flags ask for beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.drawing.preview import draw_preview
from attn_unet_jax.runtime.files import atomic_write, write_text
from attn_unet_jax.volumes.dicom.source import SourceSeries
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_mask import write_mask


@dataclass(frozen=True)
class AnsweringRun:
  """What an answer says about the run that gave it.

  Attributes:
    workdir: the folder of the run.
    step: that of its checkpoint.
    classes: the names of the values 1, 2, ... of its masks.
  """

  workdir: Path
  step: int
  classes: tuple[str, ...]

  @property
  def label_names(self) -> dict[str, int]:
    """The value of each name in a mask, background included."""
    return {"background": 0, **{name: value for value, name in enumerate(self.classes, 1)}}


@dataclass(frozen=True, eq=False)
class ScanAnswer:
  """The answer for one scan.

  Attributes:
    scan: where the scan was found.
    image: its voxels, HU on its native grid.
    mask: class indices uint8 on that grid.
    target: the mask's file.
    source: what a mask in DICOM says about the scan; None where the mask is NIfTI.
  """

  scan: FoundScan
  image: Volume
  mask: Volume
  target: Path
  source: SourceSeries | None = None


def write_answer(
  answer: ScanAnswer, run: AnsweringRun, options: AnswerOptions
) -> list[dict[str, Any]]:
  """Writes the files of an answer; returns what `measure_classes` says about its mask.

  Raises:
    UserError: a file cannot be written.
  """
  write_mask(
    answer.target,
    answer.mask,
    answer.scan,
    answer.source,
    options.output_format,
    run.label_names,
  )
  volumes = measure_classes(answer.mask, run.classes)
  if options.as_json:
    _write_volumes(answer, volumes, run)
  if options.preview:
    _draw_answer(answer, run)
  return volumes


def measure_classes(mask: Volume, classes: Sequence[str]) -> list[dict[str, Any]]:
  """Returns value, name, voxels and millilitres of each class, in the order of their values."""
  counts = np.bincount(mask.array.ravel(), minlength=len(classes) + 1).tolist()
  return [
    {
      "value": value,
      "name": name,
      "voxels": counts[value],
      "millilitres": counts[value] * mask.voxel_volume_ml,
    }
    for value, name in enumerate(classes, 1)
  ]


def name_mask(target: Path) -> str:
  """Returns the name of a mask's file without its suffix."""
  return target.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm")


def _draw_answer(answer: ScanAnswer, run: AnsweringRun) -> None:
  picture = draw_preview(answer.scan.path.name, answer.image, answer.mask, run.classes)
  with atomic_write(answer.target.with_name(f"{name_mask(answer.target)}.png")) as temporary:
    temporary.write_bytes(picture)


def _write_volumes(
  answer: ScanAnswer, volumes: Sequence[dict[str, Any]], run: AnsweringRun
) -> None:
  """Writes what `measure_classes` returns to a JSON file beside the mask."""
  content = {
    "mask": answer.target.name,
    "run": str(run.workdir),
    "checkpoint_step": run.step,
    "voxel_volume_ml": answer.mask.voxel_volume_ml,
    "classes": volumes,
  }
  path = answer.target.with_name(f"{name_mask(answer.target)}.json")
  write_text(path, json.dumps(content, indent=2) + "\n")
