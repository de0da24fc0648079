"""Segments one scan with an opened run, judges it, and writes its answer."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax import __version__
from attn_unet_jax.inference.segment import Locate, make_mask, predict_scan
from attn_unet_jax.runtime.console import print_line, strip_severity
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.workflows.answer_log import AnswerRecord, digest_request
from attn_unet_jax.workflows.answer_memory import require_answer_memory
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.measure_attention import MeasureAttention
from attn_unet_jax.workflows.options import AnswerOptions
from attn_unet_jax.workflows.write_answer import (
  AnsweringRun,
  ScanAnswer,
  name_mask,
  write_answer,
)
from attn_unet_jax.workflows.write_mask import read_mask_source


@dataclasses.dataclass(frozen=True)
class ScanWork:
  """What the answers for all scans have in common.

  Attributes:
    trained: the run that answers.
    run: what an answer says about it.
    options: what is read and written.
    boxes: the boxes of --boxes by the names of the masks; None without that flag.
    measure: maps the network's gates; None where nobody asks for them.
  """

  trained: LoadedRun
  run: AnsweringRun
  options: AnswerOptions
  boxes: Mapping[str, Box] | None
  measure: MeasureAttention | None

  def choose_locator(self, target: Path) -> Locate | None:
    """Returns what locates the box in the scan of a mask: a stage of the run, or --boxes."""
    # Boxes that the user gives come before those that a stage would find.
    if self.boxes is None:
      return self.trained.locate
    box = self.boxes[name_mask(target)]
    return lambda _: box

  def digest_request(self, target: Path) -> str:
    """Returns a digest of what the answer depends on beside the scan; '' if it is unknown."""
    # What is not known cannot be compared with what was: the scan is segmented again.
    if not self.trained.digest:
      return ""
    box = self.boxes[name_mask(target)] if self.boxes is not None else None
    made_by = self.trained.digest, self.trained.postprocessing, self.trained.quality
    # The version too: the same network and options may give another mask in another one.
    return digest_request(__version__, *made_by, self.options.written, box)


def record_answer(scan: FoundScan, target: Path, work: ScanWork) -> tuple[AnswerRecord, str]:
  """Answers a scan as `answer_scan`, but a scan that is refused is no exception.

  The record has the reason then.
  """
  began = time.monotonic()
  warnings: list[str] = []
  try:
    return answer_scan(scan, target, work, warnings)
  # A bad scan of many must not stop the others; all failures end in one error.
  except UserError as error:
    failed = dataclasses.replace(
      _begin_record(scan, target),
      seconds=time.monotonic() - began,
      warnings=tuple(warnings),
      error=str(error),
    )
    return failed, f"not written ({error})"


def answer_scan(
  scan: FoundScan, target: Path, work: ScanWork, warnings: list[str]
) -> tuple[AnswerRecord, str]:
  """Segments a scan and writes its answer. Returns the record, and what the screen says.

  What is said of the scan is added to `warnings`, also where an error follows.

  Raises:
    UserError: the scan is refused, or takes more memory than there is.
    WriteError: a file of the answer cannot be written.
  """
  began = time.monotonic()
  try:
    answer = _segment_file(scan, target, work, warnings)
    volumes = write_answer(answer, work.run, work.options)
  except MemoryError:
    raise UserError(f"{scan.path}: out of memory") from None
  took = time.monotonic() - began
  found = [_describe_class(one) for one in volumes]
  done = dataclasses.replace(
    _begin_record(scan, target),
    request=work.digest_request(target),
    engine=work.run.engine,
    accepted=tuple(sorted(work.options.accept)),
    millilitres={one["name"]: one["millilitres"] for one in volumes},
    quality={one["name"]: one["expected_dsc"] for one in volumes if "expected_dsc" in one},
    seconds=took,
    warnings=tuple(warnings),
  )
  return done, f"{', '.join(found)}; {took:.1f} s"


def _begin_record(scan: FoundScan, target: Path) -> AnswerRecord:
  return AnswerRecord(name_mask(target), str(scan.path), target.name)


def _describe_class(measured: Mapping[str, Any]) -> str:
  text = f"{measured['value']} {measured['name']} {measured['millilitres']:.2f} ml"
  return (
    f"{text}, expected DSC {measured['expected_dsc']:.2f}" if "expected_dsc" in measured else text
  )


def _segment_file(scan: FoundScan, target: Path, work: ScanWork, warnings: list[str]) -> ScanAnswer:
  """Reads, judges and segments a scan; adds to `warnings` what the judge says."""
  # Everything that can refuse a scan comes before the network, which takes by far the longest.
  image = scan.read(work.options.accept)
  written_on = read_mask_source(scan, work.options.output_format)
  config = work.trained.config
  # Slices of DICOM have no header of NIfTI, whose two affines could differ.
  file = scan.path if scan.survey is None else None
  for window in _list_windows(work.trained):
    for line in Judge(work.options.accept, window).judge_scan(image, scan.path, file):
      if strip_severity(line) not in warnings:  # which all windows have in common
        print_line(line)
        warnings.append(strip_severity(line))
  locate = work.choose_locator(target)
  require_answer_memory(image.grid, work.trained, work.options, scan.path)
  # Otherwise the scan before this one would count in how far the members agree.
  work.trained.forget_agreement()
  found = predict_scan(image, work.trained.system, config, locate, scan.path)
  mask = make_mask(found, config, work.trained.postprocessing)
  quality = work.trained.estimate_quality(found)
  for name, one in quality.items():
    if one.doubtful:
      line = (
        f"{scan.path}: the expected DSC of {name}, {one.expected_dsc:.2f}, is below the "
        f"run's threshold, {work.trained.quality[name].threshold:.2f}; look at the mask"
      )
      print_line(f"warning: {line}")
      warnings.append(line)
  # Probabilities of a whole scan are large, and are let go where no map is made of them.
  kept = found if work.options.saves_maps else None
  gates = work.measure(image, found.box, str(scan.path)) if work.measure else {}
  said = tuple(warnings)
  return ScanAnswer(scan, image, mask, target, kept, written_on, gates, quality, said)


def _list_windows(trained: LoadedRun) -> list[tuple[float, float] | None]:
  """Lists the intensity windows of the runs, each once; None stands for z-scores."""
  data = [config.data for config in trained.configs]
  windows = [one.window_hu if one.normalisation == "window" else None for one in data]
  return list(dict.fromkeys(windows))
