"""Segments scans with a trained run and writes each mask on the grid of its scan."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.inference.segment import Locate, segment_scan
from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, write_text
from attn_unet_jax.volumes.dicom.series import describe_skipped
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.list_scans import list_scans
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_run import open_run_or_stages


def segment_scans(
  workdir: Path,
  source: Path,
  output: Path,
  series: str | None = None,
  boxes_file: str | None = None,
  *,
  accept: Acceptance = NOTHING,
  as_json: bool = False,
) -> None:
  """Segments every scan and writes its mask; names the scans that cannot be segmented.

  Args:
    workdir: the run.
    source: a scan, or a folder of scans.
    output: the mask's file, or the folder for the masks.
    series: SeriesInstanceUID to segment if the source contains several DICOM series.
    boxes_file: JSON file of boxes to segment.
    accept: doubts about the scans that the user accepts.
    as_json: whether to write the volume of each class beside each mask, to NAME.json.

  Raises:
    UserError: the run, the scans or the output do not fit, or a scan was not segmented.
  """
  pairs, skipped = list_scans(source, output, series=series)
  # Before the run is loaded and compiled, which takes long.
  check_writable(pairs[0][1].parent)
  trained = open_run_or_stages(workdir)
  locate = _choose_locator(trained, [target for _, target in pairs], boxes_file)
  names = {"background": 0, **{name: 1 + index for index, name in enumerate(trained.classes)}}
  if skipped_line := describe_skipped(skipped):
    print_line(f"{source}: {skipped_line}")
  failures = []
  for index, (scan, target) in enumerate(pairs):
    began = time.monotonic()
    try:
      mask = _segment_file(scan, trained, locate(target), accept)
    # A bad scan of many must not stop the others; all failures end in one error.
    except UserError as error:
      failures.append(str(error))
      if len(pairs) > 1:
        print_line(f"{index + 1}/{len(pairs)} {target}: not written ({error})")
      continue
    # A DICOM scan has no NIfTI header to copy.
    write_nifti(target, mask, like=scan.path if scan.survey is None else None, label_names=names)
    volumes = measure_classes(mask, trained.classes)
    if as_json:
      _write_volumes(target, volumes, mask.voxel_volume_ml, workdir, trained.step)
    found = [f"{one['value']} {one['name']} {one['millilitres']:.1f} ml" for one in volumes]
    print_line(
      f"{index + 1}/{len(pairs)} {target}: {', '.join(found)}; {time.monotonic() - began:.1f} s"
    )
  if failures:
    of_all = f"{len(failures)} of {len(pairs)} scans not segmented, the first: "
    raise UserError((of_all if len(pairs) > 1 else "") + failures[0])


def _segment_file(
  scan: FoundScan, trained: LoadedRun, locate: Locate | None, accept: Acceptance
) -> Volume:
  image = scan.read(accept)
  data = trained.config.data
  judge = Judge(accept, data.window_hu if data.normalisation == "window" else None)
  for line in judge.judge_scan(image, scan.path, scan.path if scan.survey is None else None):
    print_line(line)
  return segment_scan(image, trained.system, trained.config, locate, scan.path).mask


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


def _write_volumes(
  mask: Path, volumes: Sequence[dict[str, Any]], voxel_ml: float, workdir: Path, step: int
) -> None:
  """Writes what `measure_classes` returns to a JSON file beside the mask."""
  about = {"mask": mask.name, "run": str(workdir), "checkpoint_step": step}
  content = {**about, "voxel_volume_ml": voxel_ml, "classes": volumes}
  write_text(mask.with_name(f"{_mask_name(mask)}.json"), json.dumps(content, indent=2) + "\n")


def _choose_locator(
  trained: LoadedRun, outputs: Sequence[Path], boxes_file: str | None
) -> Callable[[Path], Locate | None]:
  """Returns what locates the box in the scan of each mask: a stage of the run, or --boxes."""
  if not boxes_file:
    if trained.config.data.boxes:
      raise UserError(
        "the run was trained inside boxes; give the boxes of these scans by --boxes=FILE"
      )
    return lambda _: trained.locate
  boxes = read_boxes(Path(boxes_file))
  check_boxes(boxes, [_mask_name(output) for output in outputs], boxes_file)
  return lambda output: lambda _: boxes[_mask_name(output)]


def _mask_name(output: Path) -> str:
  return output.name.removesuffix(".gz").removesuffix(".nii")
