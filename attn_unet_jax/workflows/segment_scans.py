"""Segments scans with a trained run and writes each mask on the grid of its scan."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.inference.segment import Locate, segment_scan
from attn_unet_jax.runtime.acceptance import Acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.volumes.dicom.series import describe_skipped
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.workflows.list_scans import list_scans
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_run import open_run_or_stages
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_answer import (
  AnsweringRun,
  ScanAnswer,
  name_mask,
  write_answer,
)


def segment_scans(
  workdir: Path, source: Path, output: Path, options: AnswerOptions | None = None
) -> None:
  """Segments every scan and writes its mask; names the scans that cannot be segmented.

  Args:
    workdir: the run.
    source: a scan, or a folder of scans.
    output: the mask's file, or the folder for the masks.
    options: what is read and written.

  Raises:
    UserError: the run, the scans or the output do not fit, or a scan was not segmented.
  """
  options = options or AnswerOptions()
  pairs, skipped = list_scans(source, output, series=options.series)
  # Before the run is loaded and compiled, which takes long.
  check_writable(pairs[0][1].parent)
  trained = open_run_or_stages(workdir)
  run = AnsweringRun(workdir, trained.step, trained.classes)
  locate = _choose_locator(trained, [target for _, target in pairs], options.boxes_file)
  if skipped_line := describe_skipped(skipped):
    print_line(f"{source}: {skipped_line}")
  failures = []
  for index, (scan, target) in enumerate(pairs):
    place = f"{index + 1}/{len(pairs)} {target}"
    began = time.monotonic()
    try:
      answer = _answer_scan(scan, target, trained, locate(target), options.accept)
    # A bad scan of many must not stop the others; all failures end in one error.
    except UserError as error:
      failures.append(str(error))
      if len(pairs) > 1:
        print_line(f"{place}: not written ({error})")
      continue
    volumes = write_answer(answer, run, options)
    found = [f"{one['value']} {one['name']} {one['millilitres']:.1f} ml" for one in volumes]
    print_line(f"{place}: {', '.join(found)}; {time.monotonic() - began:.1f} s")
  if failures:
    of_all = f"{len(failures)} of {len(pairs)} scans not segmented, the first: "
    raise UserError((of_all if len(pairs) > 1 else "") + failures[0])


def _answer_scan(
  scan: FoundScan, target: Path, trained: LoadedRun, locate: Locate | None, accept: Acceptance
) -> ScanAnswer:
  """Reads, judges and segments a scan."""
  image = scan.read(accept)
  data = trained.config.data
  judge = Judge(accept, data.window_hu if data.normalisation == "window" else None)
  for line in judge.judge_scan(image, scan.path, scan.path if scan.survey is None else None):
    print_line(line)
  mask = segment_scan(image, trained.system, trained.config, locate, scan.path).mask
  return ScanAnswer(scan, image, mask, target)


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
  check_boxes(boxes, [name_mask(output) for output in outputs], boxes_file)
  return lambda output: lambda _: boxes[name_mask(output)]
