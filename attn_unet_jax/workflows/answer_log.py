"""Records what was answered in an output folder: for people, and so that nothing is done twice.

`volumes.csv` has a line for each scan. The hidden folder `.answers` has a JSON file for each, which
says what its mask was made from: the scan's bytes, the network's values and every option. A mask is
taken as done only where all of that is as it was, and where the mask itself is.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attn_unet_jax.runtime.acceptance import Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json, write_text
from attn_unet_jax.volumes.dicom.files import is_zip
from attn_unet_jax.volumes.dicom.folder import refuse_special
from attn_unet_jax.volumes.dicom.series import choose_series
from attn_unet_jax.volumes.scan import FoundScan

TABLE = "volumes.csv"
_FOLDER = ".answers"
_FIRST_COLUMNS, _LAST_COLUMNS = ("name", "scan"), ("seconds", "warnings", "error")


@dataclasses.dataclass(frozen=True)
class ScanDigest:
  """What tells a scan from every other one.

  Attributes:
    stamp: digest of the paths, sizes and times of its files; equal stamps are of equal files.
    content: digest of their bytes.
  """

  stamp: str
  content: str


@dataclasses.dataclass(frozen=True)
class AnswerRecord:
  """What was answered for a scan, or why nothing was.

  Attributes:
    name: the name of its mask, without a suffix.
    scan: its path.
    mask: the name of the mask's file.
    mask_digest: of the bytes of that file; '' if it was not written.
    engine: what computed the network.
    request: digest of the network and the options; '' where the network is unknown.
    accepted: the doubts that the user accepted.
    digest: of the scan.
    millilitres: the volume of each class.
    quality: the expected DSC of each class, where it is estimated.
    seconds: from reading to writing.
    warnings: what the judge said.
    error: why there is no mask; '' if there is one.
  """

  name: str
  scan: str
  mask: str
  mask_digest: str = ""
  request: str = ""
  accepted: tuple[str, ...] = ()
  digest: ScanDigest | None = None
  millilitres: Mapping[str, float] = dataclasses.field(default_factory=dict)
  quality: Mapping[str, float] = dataclasses.field(default_factory=dict)
  seconds: float | None = None
  warnings: tuple[str, ...] = ()
  error: str = ""
  engine: str = ""


class AnswerLog:
  """The records of an output folder.

  Args:
    folder: the folder of the masks.

  Raises:
    UserError: there is a table of that name which this program did not write, or the folder cannot
      be read.
  """

  def __init__(self, folder: Path):
    self._folder, self.table = folder, folder / TABLE
    self._records = _read_records(folder / _FOLDER)
    self._added: dict[str, AnswerRecord] = {}
    if not self._records and self.table.exists():
      raise UserError(
        f"{self.table}: is there, but no records of predictions are in {folder / _FOLDER}, so it "
        "may be yours; move it away, or choose another --output"
      )

  def find_done(
    self, target: Path, scan: FoundScan, request: str, accept: Acceptance
  ) -> Literal["done", "edited", "missing"]:
    """Returns whether there is a mask at `target` of what the network would answer for the scan.

    An `edited` mask was one, and somebody has changed it since.
    """
    record = self._records.get(target.name)
    # A scan that failed is tried again: it, or the machine, may be another one by now.
    if record is None or record.error or not record.digest or not request:
      return "missing"
    # A doubt that is no longer accepted has to be judged again.
    if record.request != request or not set(record.accepted) <= accept:
      return "missing"
    try:
      # Copies and touched files have another stamp and the same bytes. Only then these are read, as
      # a scan may have gigabytes.
      if record.digest.stamp != read_stamp(scan) and (
        record.digest.content != digest_scan(scan).content
      ):
        return "missing"
      return "done" if record.mask_digest == digest_files([target]) else "edited"
    except (OSError, UserError):  # told when the scan is read
      return "missing"

  def add(self, record: AnswerRecord, scan: FoundScan | None = None, stamp: str = "") -> None:
    """Adds the record of a scan, and writes the table.

    Args:
      record: what was answered.
      scan: the scan, if it could be opened.
      stamp: what `read_stamp` said before the scan was read.

    Raises:
      UserError: the folder cannot be written.
    """
    if scan and not record.error:
      record = self._add_digests(record, scan, stamp)
    self._records[record.mask] = self._added[record.mask] = record
    text = json.dumps(dataclasses.asdict(record), indent=1) + "\n"
    try:
      (self._folder / _FOLDER).mkdir(parents=True, exist_ok=True)
      # A digest as the name: that of a mask may be as long as a file system takes.
      write_text(self._folder / _FOLDER / f"{_digest_text(record.mask)[:32]}.json", text)
      self.write_table()
    except OSError as error:
      raise UserError(
        f"{self._folder}: cannot be written ({error.strerror}); make room or name another"
      ) from None

  def _add_digests(self, record: AnswerRecord, scan: FoundScan, stamp: str) -> AnswerRecord:
    """Returns the record with digests, or without where the scan has changed meanwhile."""
    with contextlib.suppress(OSError, UserError):
      digest, of_mask = digest_scan(scan), digest_files([self._folder / record.mask])
      if digest.stamp == stamp:
        return dataclasses.replace(record, digest=digest, mask_digest=of_mask)
    return record

  def refresh_table(self) -> None:
    """Writes the table again, with what other processes have answered meanwhile."""
    self._records = _read_records(self._folder / _FOLDER) | self._added
    self.write_table()

  def write_table(self) -> None:
    """Writes `volumes.csv`: a line for each scan that has a mask or an error."""
    shown = [
      record
      for name, record in sorted(self._records.items())
      # Not those whose mask somebody has removed or moved away.
      if record.error or (self._folder / name).exists()
    ]
    write_text(self.table, format_table(shown))


def format_table(records: Sequence[AnswerRecord]) -> str:
  """Formats a table in CSV: a column for each class, empty where a run did not know it."""
  # A folder may have answers of several runs, with other classes.
  classes = list(dict.fromkeys(name for record in records for name in record.millilitres))
  text = io.StringIO()
  # By default Python ends lines of CSV with a carriage return too.
  writer = csv.writer(text, lineterminator="\n")
  judged = list(dict.fromkeys(name for record in records for name in record.quality))
  columns = [*(f"{name}_ml" for name in classes), *(f"{name}_expected_dsc" for name in judged)]
  writer.writerow([*_FIRST_COLUMNS, *columns, *_LAST_COLUMNS])
  for record in records:
    volumes = [record.millilitres.get(name) for name in classes]
    expected = [record.quality.get(name) for name in judged]
    writer.writerow(
      [
        *(record.name, record.scan),
        *("" if volume is None else f"{volume:.2f}" for volume in volumes),
        *("" if dsc is None else f"{dsc:.3f}" for dsc in expected),
        "" if record.seconds is None else f"{record.seconds:.1f}",
        " | ".join(record.warnings),
        record.error,
      ]
    )
  return text.getvalue()


def digest_request(*parts: object) -> str:
  """Returns a hexadecimal digest of what an answer depends on, each part by its `repr`."""
  return _digest_text(repr(parts))


def digest_scan(scan: FoundScan) -> ScanDigest:
  """Digests the files of a scan.

  Raises:
    UserError: there is no one series to read, or a file is neither a file nor a folder.
    OSError: a file cannot be read.
  """
  # The stamp first: a file that changes meanwhile has another one next time.
  stamp = read_stamp(scan)
  content = digest_files(_list_scan_files(scan))
  if scan.survey is not None and is_zip(scan.path):
    # The file holds other series too; those of a folder are not among the scan's files.
    content = digest_request(choose_series(scan.survey, scan.series_uid).uid, content)
  return ScanDigest(stamp, content)


def read_stamp(scan: FoundScan) -> str:
  """Returns a digest of the paths, sizes and times of a scan's files; '' if it is unreadable."""
  facts: list[object] = []
  with contextlib.suppress(OSError, UserError):  # told when the scan is read
    for path in _list_scan_files(scan):
      about = path.stat()
      # A program may set a file's time of modification back, but not the last one.
      facts.append((str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return digest_request(scan.series_uid, facts)
  return ""


def digest_files(paths: Iterable[Path]) -> str:
  """Returns a hexadecimal digest of the bytes of files.

  Raises:
    UserError: a path is a fifo, a socket or a device.
    OSError: a file cannot be read.
  """
  digest = hashlib.sha256()
  for path in paths:
    refuse_special(path)
    with path.open("rb") as file:
      # A digest of digests: bytes that move from a file to the next one change it.
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()


def _list_scan_files(scan: FoundScan) -> list[Path]:
  if scan.survey is None or is_zip(scan.path):
    return [scan.path]
  return sorted(choose_series(scan.survey, scan.series_uid).files)


def _read_records(folder: Path) -> dict[str, AnswerRecord]:
  """Reads the records of a folder by the names of the masks; what is damaged is left out."""
  found = {}
  # A file that is being written has a dot in front, and is not read.
  for path in sorted(folder.glob("[0-9a-f]*.json")):
    # A scan whose record is lost is segmented again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
      record = _parse_record(read_json(path))
      found[record.mask] = record
  return found


def _parse_record(content: Any) -> AnswerRecord:
  """Returns the record in the content of its file.

  Raises:
    ValueError, TypeError, KeyError: it is none.
  """
  digest = content["digest"]
  return AnswerRecord(
    **content
    | {
      "digest": ScanDigest(**digest) if digest else None,
      "accepted": tuple(content["accepted"]),
      "warnings": tuple(map(str, content["warnings"])),
      "millilitres": {str(name): float(ml) for name, ml in content["millilitres"].items()},
      # Folders of earlier versions have none.
      "quality": {str(name): float(dsc) for name, dsc in content.get("quality", {}).items()},
    }
  )


def _digest_text(text: str) -> str:
  # Paths may hold bytes that are no UTF-8, which Python reads as surrogates.
  return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
