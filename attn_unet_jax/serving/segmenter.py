"""Answers one request by the workflow of `predict`: the same readers, refusals, masks and JSON."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.deadline import Deadline, check_deadline, keep_deadline
from attn_unet_jax.runtime.errors import UserError, WriteError, format_error
from attn_unet_jax.runtime.files import atomic_write, write_text
from attn_unet_jax.serving.archive import fetch_series, store_instance
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.serving.scan_files import SENT, SentScan
from attn_unet_jax.volumes.dicom.write_segmentation import import_highdicom
from attn_unet_jax.volumes.scan import open_scan
from attn_unet_jax.workflows.answer_scan import ScanWork, answer_scan
from attn_unet_jax.workflows.write_mask import SUFFIXES, OutputFormat, is_dicom_format


@dataclasses.dataclass(frozen=True)
class ScanRequest:
  """What a client asks for.

  Attributes:
    scan: what it sent; None: the series is read from the archive.
    series: SeriesInstanceUID, in the archive or among several in the scan.
    output_format: the format of the mask.
    accept: doubts about the scan that the client accepts.
    store: whether the mask is stored in the archive.
  """

  scan: SentScan | None
  series: str | None = None
  output_format: OutputFormat = "nifti"
  accept: Acceptance = NOTHING
  store: bool = False


@dataclasses.dataclass(frozen=True)
class ServedAnswer:
  """A mask's file, and what `predict --json` says beside it, with the time that it took."""

  mask: Path
  facts: dict[str, Any]


class Segmenter:
  """Segments the scans of requests, one after the other, with networks that are compiled once.

  Args:
    work: the opened run.
    options: the limits, the archive, and where answers are kept.
  """

  def __init__(self, work: ScanWork, options: ServiceOptions):
    self.work, self._options = work, options

  @property
  def model_name(self) -> str:
    """The name of the run for clients, who know no folder of this machine."""
    return "+".join(Path(one).resolve().name for one in self.work.run.name.split(","))

  def check_request(self, request: ScanRequest) -> None:
    """Refuses, before anything waits, a request that this service cannot answer.

    Raises:
      RequestError: it needs an archive, a format or a package that is not there.
    """
    if self._options.archive is None and (request.store or request.scan is None):
      raise RequestError(422, "the service has no archive: it was started without --dicomweb")
    if request.store and not is_dicom_format(request.output_format):
      raise RequestError(
        422, f"an archive stores DICOM, and no {request.output_format}: ask for dicom-seg"
      )
    if request.output_format == "dicom-seg":
      try:
        import_highdicom()
      except UserError as error:
        raise RequestError(501, format_error(error)) from None

  def segment(self, request: ScanRequest, folder: Path, deadline: Deadline) -> ServedAnswer:
    """Writes the mask into a folder.

    Raises:
      RequestError: the scan is refused, or its time is over.
    """
    scan = request.scan or SentScan(folder / SENT / "series", f"series {request.series}")
    try:
      with keep_deadline(deadline):
        answer = self._segment(scan, request, folder)
        check_deadline()  # before anything is stored or kept that nobody wants any more
    # It is a `UserError` too, but has its status already.
    except RequestError:
      raise
    except OSError as error:
      raise RequestError(507, f"the scan cannot be taken: {error.strerror}") from None
    except WriteError as error:
      raise RequestError(507, f"the mask cannot be written ({error.reason})") from None
    except UserError as error:
      # A client knows its own name of the scan, and no folder of this machine.
      said = format_error(error).replace(str(scan.path), scan.name)
      raise RequestError(504 if deadline.is_over else 422, said) from None
    # Last of all: what an archive has stored cannot be taken back.
    if request.store and self._options.archive:
      store_instance(self._options.archive, answer.mask.read_bytes())
      answer.facts["stored"] = True
    if self._options.keep:
      self._keep(answer, folder.name)
    return answer

  def _segment(self, scan: SentScan, request: ScanRequest, folder: Path) -> ServedAnswer:
    check_deadline()  # it may have waited for long
    archive = self._options.archive
    if request.scan is None and request.series and archive:
      fetch_series(archive, request.series, scan.path, self._options.max_bytes)
    target = folder / f"mask{SUFFIXES[request.output_format][-1]}"
    # `as_json`, because the facts of the answer are read from that file.
    options = dataclasses.replace(
      self.work.options, as_json=True, output_format=request.output_format, accept=request.accept
    )
    # The options alone are of this request; the network stays compiled.
    found = open_scan(scan.path, series_uid=request.series)
    record, _ = answer_scan(found, target, dataclasses.replace(self.work, options=options), [])
    facts = json.loads((folder / "mask.json").read_bytes())
    said = [line.replace(str(scan.path), scan.name) for line in facts["warnings"]]
    facts |= {"run": self.model_name, "scan": scan.name, "warnings": said}
    return ServedAnswer(target, {**facts, "seconds": record.seconds})

  def _keep(self, answer: ServedAnswer, name: str) -> None:
    assert self._options.keep is not None
    kept = self._options.keep / f"{name}{answer.mask.name.removeprefix('mask')}"
    text = json.dumps({**answer.facts, "mask": kept.name}, indent=2)
    try:
      with atomic_write(kept) as temporary:
        shutil.copyfile(answer.mask, temporary)
      # After the mask: where there is a JSON file its mask is complete.
      write_text(self._options.keep / f"{name}.json", f"{text}\n")
    except OSError as error:
      raise RequestError(507, f"the mask cannot be kept: {error.strerror}") from None
