"""Segments scans with a trained run and writes each mask on the grid of its scan."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.runs.builtin import name_run
from attn_unet_jax.runtime.console import estimate_time_left, print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.dicom.series import describe_skipped
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.workflows.answer_log import (
  AnswerLog,
  AnswerRecord,
  read_stamp,
)
from attn_unet_jax.workflows.answer_scan import ScanWork, record_answer
from attn_unet_jax.workflows.evaluate_run import leave_unprocessed
from attn_unet_jax.workflows.list_scans import ScanListing, list_scans
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.measure_attention import MeasureAttention, open_attention
from attn_unet_jax.workflows.mirror_run import mirror_run, scale_run
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.use_engine import use_engine
from attn_unet_jax.workflows.write_answer import (
  AnsweringRun,
  list_beside,
  name_mask,
)

_MAX_REASONS = 10  # in the error at the end; other scans are named without theirs


def segment_scans(
  workdirs: Sequence[Path], source: Path, output: Path, options: AnswerOptions | None = None
) -> None:
  """Segments every scan and writes its mask; names the scans that cannot be segmented.

  In a folder, masks that this run made of these scans are left as they are, and `volumes.csv` has a
  line for each scan.

  Args:
    workdirs: the run, or several whose probabilities are averaged.
    source: a scan, a folder of scans, a pattern of their names, or a CSV file that lists them.
    output: the mask's file, or the folder for the masks.
    options: what is read and written.

  Raises:
    UserError: the run, the scans or the output do not fit, or a scan was not segmented.
  """
  options = options or AnswerOptions()
  listing = list_scans(source, output, series=options.series, output_format=options.output_format)
  targets = [target for _, target in listing.scans] + [target for _, target, _ in listing.broken]
  # Before the run is loaded and compiled, which takes long.
  check_writable(targets[0].parent)
  _check_beside(listing, options)
  # One mask that is named is made whenever it is asked for.
  log = AnswerLog(output) if targets != [output] else None
  work = open_work(workdirs, options)
  # After the run is open: whether it needs boxes stands in its config.
  boxes = _read_boxes(work.trained, targets, options.boxes_file)
  work = dataclasses.replace(work, boxes=boxes)
  if skipped_line := describe_skipped(listing.skipped):
    print_line(f"{source}: {skipped_line}")
  failures = _answer_all(listing, work, log)
  if log:
    # Another process may have answered scans of the same folder meanwhile.
    log.refresh_table()
  if failures:
    raise UserError(_describe_failures(failures, len(targets), log))


def open_work(workdirs: Sequence[Path], options: AnswerOptions) -> ScanWork:
  """Opens the run, or several as their mean, with what the options make of it.

  Raises:
    UserError: the runs cannot be opened, or the options do not fit them.
  """
  # First, so that a network without gates is refused before several are opened.
  measure = _open_attention(workdirs) if options.attention else None
  trained = open_ensemble(workdirs)
  if not options.postprocess:
    trained = leave_unprocessed(trained)
  trained = scale_run(mirror_run(trained, options.mirrors), options.scales)
  trained = use_engine(trained, options.engine)
  name = ",".join(map(name_run, workdirs))
  run = AnsweringRun(name, trained.step, trained.classes, trained.engine)
  return ScanWork(trained, run, options, None, measure)


def _open_attention(workdirs: Sequence[Path]) -> MeasureAttention:
  if len(workdirs) > 1:
    raise UserError(
      f"--attention: shows the gates of one network, and --workdir names {len(workdirs)} runs; "
      "name one of them"
    )
  return open_attention(workdirs[0])


def _check_beside(listing: ScanListing, options: AnswerOptions) -> None:
  """Refuses answers whose files beside the mask would be those of another answer, or a scan."""
  targets = [target for _, target in listing.scans]
  owners = {path.resolve(): path for path in targets}
  # A scan `a_probabilities.nii.gz` beside `a.nii.gz` would otherwise be overwritten.
  owners |= {scan.path.resolve(): scan.path for scan, _ in listing.scans}
  owners |= {path.resolve(): path for path, _, _ in listing.broken}
  for target in targets:
    for beside in list_beside(target, options):
      if other := owners.get(beside.resolve()):
        raise UserError(
          f"--output={target.parent}: {beside.name}, beside the mask {target.name}, would "
          f"overwrite {other}; rename that scan, or choose another --output"
        )
      owners[beside.resolve()] = beside


def _answer_all(listing: ScanListing, work: ScanWork, log: AnswerLog | None) -> dict[Path, str]:
  """Answers every scan that is not answered yet; returns why some were not, by the masks."""
  failures: dict[Path, str] = {}
  for path, target, reason in listing.broken:
    failures[target] = reason
    print_line(f"{target}: not written ({reason})")
    if log:
      log.add(AnswerRecord(name_mask(target), str(path), target.name, error=reason))
  todo = listing.scans if work.options.again else _leave_out_done(listing.scans, work, log)
  began = time.monotonic()
  for index, (scan, target) in enumerate(todo):
    # Before the scan is read: one that changes meanwhile is then not taken as answered.
    stamp = read_stamp(scan)
    record, line = record_answer(scan, target, work)
    if record.error:
      failures[target] = record.error
    left = estimate_time_left(time.monotonic() - began, index + 1, len(todo))
    if index + 1 < len(todo):
      line += f"; about {left} left"
    # A single scan is told by the error alone.
    if len(listing.scans) > 1 or not record.error:
      print_line(f"{index + 1}/{len(todo)} {target}: {line}")
    if log:
      log.add(record, scan, stamp)
  return failures


def _leave_out_done(
  scans: Sequence[tuple[FoundScan, Path]], work: ScanWork, log: AnswerLog | None
) -> list[tuple[FoundScan, Path]]:
  """Returns the scans that are to be answered, and says how many are not."""
  if log is None:
    return list(scans)
  todo, done = list[tuple[FoundScan, Path]](), 0
  for scan, target in scans:
    found = log.find_done(target, scan, work.digest_request(target), work.options.accept)
    if found == "edited":
      # Hours of somebody's work, perhaps.
      print_line(f"{target}: was changed since it was made, and is left; --again makes it again")
    # A preview or a page may have been removed, or be asked for the first time.
    elif found == "missing" or not all(path.exists() for path in list_beside(target, work.options)):
      todo.append((scan, target))
    else:
      done += 1
  if done:
    are = "mask was" if done == 1 else "masks were"
    print_line(f"{done} {are} there already; --again makes {'it' if done == 1 else 'them'} again")
  return todo


def _describe_failures(failures: Mapping[Path, str], total: int, log: AnswerLog | None) -> str:
  """Returns the error that lists all scans without a mask."""
  reasons = list(failures.values())
  if log is None or total == 1:
    return reasons[0]
  text = f"{len(failures)} of {total} scans not segmented: {'; '.join(reasons[:_MAX_REASONS])}"
  if others := list(failures)[_MAX_REASONS:]:
    text += f"; and {', '.join(name_mask(target) for target in others)}"
  return f"{text}; {log.table} has a line for each"


def _read_boxes(
  trained: LoadedRun, outputs: Sequence[Path], boxes_file: str | None
) -> Mapping[str, Box] | None:
  """Reads the boxes of --boxes by the names of the masks; None without that flag."""
  if not boxes_file:
    if trained.config.data.boxes:
      raise UserError(
        "the run was trained inside boxes; give the boxes of these scans by --boxes=FILE"
      )
    return None
  boxes = read_boxes(Path(boxes_file))
  check_boxes(boxes, [name_mask(output) for output in outputs], boxes_file)
  return boxes
