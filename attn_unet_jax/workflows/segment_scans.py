"""Segments scans with a trained run and writes each mask on the grid of its scan."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax import __version__
from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.inference.quality import estimate_quality
from attn_unet_jax.inference.segment import Locate, make_mask, predict_scan
from attn_unet_jax.runtime.console import estimate_time_left, print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.dicom.series import describe_skipped
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.workflows.answer_log import (
  AnswerLog,
  AnswerRecord,
  digest_request,
  read_stamp,
)
from attn_unet_jax.workflows.answer_memory import require_answer_memory
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
  ScanAnswer,
  list_beside,
  name_mask,
  write_answer,
)
from attn_unet_jax.workflows.write_mask import read_mask_source

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
  measure = _open_attention(workdirs) if options.attention else None
  trained = open_ensemble(workdirs)
  if not options.postprocess:
    trained = leave_unprocessed(trained)
  trained = scale_run(mirror_run(trained, options.mirrors), options.scales)
  trained = use_engine(trained, options.engine)
  boxes = _read_boxes(trained, targets, options.boxes_file)
  if skipped_line := describe_skipped(listing.skipped):
    print_line(f"{source}: {skipped_line}")
  name = ",".join(map(str, workdirs))
  run = AnsweringRun(name, trained.step, trained.classes, trained.engine)
  work = _ScanWork(trained, run, options, boxes, measure)
  failures = _answer_all(listing, work, log)
  if log:
    log.refresh_table()
  if failures:
    raise UserError(_describe_failures(failures, len(targets), log))


def _open_attention(workdirs: Sequence[Path]) -> MeasureAttention:
  if len(workdirs) > 1:
    raise UserError(
      f"--attention: shows the gates of one network, and --workdir names {len(workdirs)} runs; "
      "name one of them"
    )
  return open_attention(workdirs[0])


@dataclasses.dataclass(frozen=True)
class _ScanWork:
  """What the answers for all scans have in common."""

  trained: LoadedRun
  run: AnsweringRun
  options: AnswerOptions
  boxes: Mapping[str, Box] | None
  measure: MeasureAttention | None

  def choose_locator(self, target: Path) -> Locate | None:
    """Returns what locates the box in the scan of a mask: a stage of the run, or --boxes."""
    if self.boxes is None:
      return self.trained.locate
    box = self.boxes[name_mask(target)]
    return lambda _: box

  def digest_request(self, target: Path) -> str:
    """Returns a digest of what the answer depends on beside the scan; '' if it is unknown."""
    if not self.trained.digest:
      return ""
    box = self.boxes[name_mask(target)] if self.boxes is not None else None
    made_by = self.trained.digest, self.trained.postprocessing, self.trained.quality
    return digest_request(__version__, *made_by, self.options.written, box)


def _check_beside(listing: ScanListing, options: AnswerOptions) -> None:
  """Refuses answers whose files beside the mask would be those of another answer, or a scan."""
  targets = [target for _, target in listing.scans]
  owners = {path.resolve(): path for path in targets}
  owners |= {scan.path.resolve(): scan.path for scan, _ in listing.scans}
  for target in targets:
    for beside in list_beside(target, options):
      if other := owners.get(beside.resolve()):
        raise UserError(
          f"--output={target.parent}: {beside.name}, beside the mask {target.name}, would "
          f"overwrite {other}; rename that scan, or choose another --output"
        )
      owners[beside.resolve()] = beside


def _answer_all(listing: ScanListing, work: _ScanWork, log: AnswerLog | None) -> dict[Path, str]:
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
    stamp = read_stamp(scan)
    record, line = _answer_scan(scan, target, work)
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
  scans: Sequence[tuple[FoundScan, Path]], work: _ScanWork, log: AnswerLog | None
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
    elif found == "missing" or not all(path.exists() for path in list_beside(target, work.options)):
      todo.append((scan, target))
    else:
      done += 1
  if done:
    are = "mask was" if done == 1 else "masks were"
    print_line(f"{done} {are} there already; --again makes {'it' if done == 1 else 'them'} again")
  return todo


def _answer_scan(scan: FoundScan, target: Path, work: _ScanWork) -> tuple[AnswerRecord, str]:
  """Segments a scan and writes its answer. Returns the record, and what the screen says."""
  began = time.monotonic()
  record = AnswerRecord(name_mask(target), str(scan.path), target.name)
  warnings: list[str] = []
  try:
    answer = _segment_file(scan, target, work, warnings)
    volumes = write_answer(answer, work.run, work.options)
  # A bad scan of many must not stop the others; all failures end in one error.
  except (UserError, MemoryError) as error:
    reason = str(error) if isinstance(error, UserError) else f"{scan.path}: out of memory"
    took = time.monotonic() - began
    failed = dataclasses.replace(record, seconds=took, warnings=tuple(warnings), error=reason)
    return failed, f"not written ({reason})"
  took = time.monotonic() - began
  found = [_describe_class(one) for one in volumes]
  done = dataclasses.replace(
    record,
    request=work.digest_request(target),
    engine=work.run.engine,
    accepted=tuple(sorted(work.options.accept)),
    millilitres={one["name"]: one["millilitres"] for one in volumes},
    quality={one["name"]: one["expected_dsc"] for one in volumes if "expected_dsc" in one},
    seconds=took,
    warnings=tuple(warnings),
  )
  return done, f"{', '.join(found)}; {took:.1f} s"


def _describe_class(measured: Mapping[str, Any]) -> str:
  text = f"{measured['value']} {measured['name']} {measured['millilitres']:.1f} ml"
  return (
    f"{text}, expected DSC {measured['expected_dsc']:.2f}" if "expected_dsc" in measured else text
  )


def _segment_file(
  scan: FoundScan, target: Path, work: _ScanWork, warnings: list[str]
) -> ScanAnswer:
  """Reads, judges and segments a scan; adds to `warnings` what the judge says."""
  image = scan.read(work.options.accept)
  written_on = read_mask_source(scan, work.options.output_format)
  config = work.trained.config
  file = scan.path if scan.survey is None else None
  for window in _list_windows(work.trained):
    for line in Judge(work.options.accept, window).judge_scan(image, scan.path, file):
      if line not in warnings:  # which all windows have in common
        print_line(line)
        warnings.append(line)
  locate = work.choose_locator(target)
  require_answer_memory(image.grid, work.trained, work.options, scan.path)
  found = predict_scan(image, work.trained.system, config, locate, scan.path)
  mask = make_mask(found, config, work.trained.postprocessing)
  quality = estimate_quality(found, work.trained.quality) if work.trained.quality else {}
  for name, one in quality.items():
    if one.doubtful:
      line = (
        f"warning: {scan.path}: the expected DSC of {name}, {one.expected_dsc:.2f}, is below the "
        f"run's threshold, {work.trained.quality[name].threshold:.2f}; look at the mask"
      )
      print_line(line)
      warnings.append(line)
  kept = found if work.options.saves_maps else None
  gates = work.measure(image, found.box, str(scan.path)) if work.measure else {}
  said = tuple(warnings)
  return ScanAnswer(scan, image, mask, target, kept, written_on, gates, quality, said)


def _list_windows(trained: LoadedRun) -> list[tuple[float, float] | None]:
  """Lists the intensity windows of the runs, each once; None stands for z-scores."""
  data = [config.data for config in trained.configs]
  windows = [one.window_hu if one.normalisation == "window" else None for one in data]
  return list(dict.fromkeys(windows))


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
