"""Writes what is answered for one scan: its mask, and what the flags ask for beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.drawing.page.answer import AnswerPage, write_answer_page
from attn_unet_jax.drawing.page.overlays import ABOUT_ENTROPY, ABOUT_GATES
from attn_unet_jax.drawing.page.volumes import embed_case
from attn_unet_jax.drawing.preview import draw_preview
from attn_unet_jax.inference.doubt import map_entropy, map_gates, map_probabilities
from attn_unet_jax.inference.quality import MaskQuality
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.runtime.errors import WriteError
from attn_unet_jax.runtime.files import atomic_write, write_text
from attn_unet_jax.volumes.dicom.source import SourceSeries
from attn_unet_jax.volumes.nifti import write_nifti, write_shares
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_mask import write_mask

_SUFFIXES = (".nii.gz", ".nii", ".dcm")
# What the names of files beside a mask end in.
_PROBABILITIES, _UNCERTAINTY = "_probabilities.nii.gz", "_uncertainty.nii.gz"
_ATTENTION = "_attention.nii.gz"


@dataclass(frozen=True)
class AnsweringRun:
  """What an answer says about the run that gave it.

  Attributes:
    name: the folder of the run; of several, with commas between them.
    step: that of its checkpoint, or of the first of several.
    classes: the names of the values 1, 2, ... of its masks.
    engine: what computed its networks, with its version.
  """

  name: str
  step: int
  classes: tuple[str, ...]
  engine: str

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
    probabilities: what the mask is made of; None where nobody asks for maps of it.
    gates: coefficients by gate on the working grid; empty where nobody asks for them.
    source: what a mask in DICOM says about the scan; None where the mask is NIfTI.
    quality: of each class; empty where it is not estimated.
    warnings: what was said about the scan and its mask.
  """

  scan: FoundScan
  image: Volume
  mask: Volume
  target: Path
  probabilities: ScanProbabilities | None
  source: SourceSeries | None = None
  gates: Mapping[str, Volume] = field(default_factory=dict)
  quality: Mapping[str, MaskQuality] = field(default_factory=dict)
  warnings: tuple[str, ...] = ()


def write_answer(
  answer: ScanAnswer, run: AnsweringRun, options: AnswerOptions
) -> list[dict[str, Any]]:
  """Writes the files of an answer; returns the volume and the quality of each class.

  Raises:
    WriteError: a file cannot be written.
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
  for one in volumes:
    one |= asdict(answer.quality[one["name"]]) if answer.quality else {}
  try:
    # The mask is written by now: what lies beside it never describes one that is missing.
    if options.as_json:
      _write_volumes(answer, volumes, run)
    _write_maps(answer, run, options)
    if options.preview:
      _draw_answer(answer, run)
    if options.report:
      _write_page(answer, volumes, run, options)
  except OSError as error:
    raise WriteError(error.filename or answer.target.parent, error) from None
  return volumes


def measure_classes(mask: Volume, classes: Sequence[str]) -> list[dict[str, Any]]:
  """Returns value, name, voxels and millilitres of each class, in the order of their values.

  Millilitres are rounded to 0.01, wherever they are shown or written; `voxels` is exact.
  """
  # Plane by plane, as NIfTI stores them: `bincount` makes int64 of what it counts.
  # A class that the mask lacks has a count too, of 0.
  planes = [np.bincount(plane.ravel(), minlength=len(classes) + 1) for plane in mask.array.T]
  counts = np.sum(planes, axis=0).tolist()
  return [
    {
      "value": value,
      "name": name,
      "voxels": counts[value],
      "millilitres": round(counts[value] * mask.voxel_volume_ml, 2),
    }
    for value, name in enumerate(classes, 1)
  ]


def name_mask(target: Path) -> str:
  """Returns the name of a mask's file without its suffix."""
  # One suffix alone: the mask of a scan `a.dcm` is `a.dcm.nii.gz`, and that of `a` is another.
  suffix = next((end for end in _SUFFIXES if target.name.endswith(end)), "")
  return target.name.removesuffix(suffix)


def list_beside(target: Path, options: AnswerOptions) -> list[Path]:
  """Returns the files that are written beside a mask."""
  ends = {
    ".json": options.as_json,
    ".png": options.preview,
    ".html": options.report,
    _PROBABILITIES: options.save_probabilities,
    _UNCERTAINTY: options.save_uncertainty,
    _ATTENTION: options.attention,
  }
  return [_name_beside(target, end) for end, is_written in ends.items() if is_written]


def _name_beside(target: Path, end: str) -> Path:
  return target.with_name(f"{name_mask(target)}{end}")


def _write_maps(answer: ScanAnswer, run: AnsweringRun, options: AnswerOptions) -> None:
  """Writes the maps of probabilities, of their entropy and of gates that are asked for."""
  found, target = answer.probabilities, answer.target
  # A DICOM scan has no NIfTI header to copy.
  like = answer.scan.path if answer.scan.survey is None else None
  if answer.gates:
    shares, grid = map_gates(list(answer.gates.values()), answer.image.grid), answer.image.grid
    write_shares(_name_beside(target, _ATTENTION), shares, grid, [*answer.gates], like=like)
  if found is None:
    return
  if options.save_probabilities:
    # The map has the background too: the shares of a voxel add up to 1.
    shares, names = map_probabilities(found), tuple(run.label_names)
    write_shares(_name_beside(target, _PROBABILITIES), shares, found.native, names, like=like)
  if options.save_uncertainty:
    write_nifti(_name_beside(target, _UNCERTAINTY), map_entropy(found), like=like)


def _draw_answer(answer: ScanAnswer, run: AnsweringRun) -> None:
  expected = {name: one.expected_dsc for name, one in answer.quality.items()}
  name = answer.scan.path.name
  picture = draw_preview(name, answer.image, answer.mask, run.classes, expected_dsc=expected)
  with atomic_write(_name_beside(answer.target, ".png")) as temporary:
    temporary.write_bytes(picture)


def _write_page(
  answer: ScanAnswer,
  volumes: Sequence[dict[str, Any]],
  run: AnsweringRun,
  options: AnswerOptions,
) -> None:
  """Writes a page with a viewer of the scan, its mask, and the maps that are asked for."""
  maps = {f"attention {gate}": one for gate, one in answer.gates.items()}
  about = dict.fromkeys(maps, ABOUT_GATES)
  if options.save_uncertainty and answer.probabilities is not None:
    # The viewer shows all scans on these axes.
    maps["uncertainty"] = to_canonical(map_entropy(answer.probabilities))
    about["uncertainty"] = ABOUT_ENTROPY
  name, mask = answer.scan.path.name, answer.mask.array
  page = AnswerPage(
    title=f"Scan {name}",
    lead=f"Segmented by {run.name}, step {run.step}; reviewed by nobody, and not for diagnosis.",
    classes=run.classes,
    millilitres=[one["millilitres"] for one in volumes],
    expected_dsc=[answer.quality[one].expected_dsc for one in run.classes if answer.quality],
    # The path of the scan begins each; whoever gets the page has no use for it.
    warnings=[one.removeprefix(f"{answer.scan.path}: ") for one in answer.warnings],
    case=embed_case(name, "", "", answer.image, None, mask, maps=maps, about_maps=about),
  )
  write_text(_name_beside(answer.target, ".html"), write_answer_page(page))


def _write_volumes(
  answer: ScanAnswer, volumes: Sequence[dict[str, Any]], run: AnsweringRun
) -> None:
  """Writes what `measure_classes` returns to a JSON file beside the mask."""
  content = {
    "mask": answer.target.name,
    "run": run.name,
    "checkpoint_step": run.step,
    "engine": run.engine,
    "voxel_volume_ml": answer.mask.voxel_volume_ml,
    "classes": volumes,
    "warnings": answer.warnings,
  }
  write_text(_name_beside(answer.target, ".json"), json.dumps(content, indent=2) + "\n")
