"""Reads cases from a data set: a folder of NIfTI files, or records made by `tfds_pancreas`."""

import bisect
import dataclasses
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from absl import logging

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_grid
from attn_unet_jax.volumes.nifti_folder import (
  explain_channel_names,
  list_nifti_files,
  read_label_names,
  read_pair,
)
from attn_unet_jax.volumes.volume import Grid, Volume

# For the types alone: the module loads tensorflow-datasets, which a folder does without.
if TYPE_CHECKING:
  from tfds_pancreas.records import BuiltDataset

_STRICT = Judge()


@dataclasses.dataclass(frozen=True)
class NativeCase:
  """A case on its native grid, axes as in the image file; `source` names it in messages."""

  id: str
  image: Volume
  label: Volume
  source: str


class Dataset(Protocol):
  """A collection of cases with random access."""

  judged: "JudgedScans"
  location: Path  # the folder of its files

  @property
  def ids(self) -> Sequence[str]:
    """The ids of all cases, sorted."""

  @property
  def parts(self) -> Mapping[str, Sequence[str]] | None:
    """The data set's own `training`, `validation` and `test` ids, if it has them."""

  @property
  def label_names(self) -> Mapping[str, int] | None:
    """The values of the label volumes by name, if the data set has names."""

  def load(self, case_id: str) -> NativeCase:
    """Reads one case and checks it."""

  def grid(self, case_id: str) -> Grid:
    """Reads the grid of a case's image, without its voxels."""

  def compute_digest(self, case_id: str) -> tuple[str, str]:
    """Returns hexadecimal digests of what is stored of a case's image and of its label."""

  def read_stamp(self, case_id: str) -> tuple[int, ...]:
    """Returns sizes and times of a case's files; where they are equal, so is the content.

    The time of the last change of the file's entry is among them, which no program can set back.
    """


def open_dataset(data: DataOptions) -> Dataset:
  """Opens the data set that a run's options name.

  Raises:
    UserError: it is missing; the message says which files are needed.
  """
  judge = make_judge(data)
  if data.folder:
    return FolderDataset(Path(data.folder), judge)
  from tfds_pancreas.records import open_records  # loads tensorflow-datasets, for records alone

  return RecordDataset(open_records(data.dataset, data.dir), judge)


def make_judge(data: DataOptions) -> Judge:
  """Makes the judge of the scans that a run trains on or is scored on."""
  window = data.window_hu if data.normalisation == "window" else None
  return Judge(data.acceptance, window)


class JudgedScans:
  """The lines that a judge said of the scans of a data set; each line is told once.

  Attributes:
    judge: decides which scans are refused.
    accepted: the lines about what was accepted so far, sorted: threads read scans in any order.
  """

  def __init__(self, judge: Judge):
    self.judge = judge
    self.accepted: list[str] = []
    self._told: set[str] = set()
    self._lock = threading.Lock()  # scans are read by several threads

  def log_once(self, lines: Sequence[str]) -> None:
    """Logs what has not been told before."""
    with self._lock:
      new = [line for line in dict.fromkeys(lines) if line not in self._told]
      self._told.update(new)
      # Into this list, which the record of a run holds from its start.
      for line in new:
        if line.startswith("accepted"):
          bisect.insort(self.accepted, line)
    for line in new:
      logging.warning(line)


class FolderDataset:
  """A folder of `imagesTr/NAME.nii.gz` and `labelsTr/NAME.nii.gz`; see `volumes.nifti_folder`."""

  parts = None  # a folder says nothing about training, validation and test

  def __init__(self, root: Path, judge: Judge = _STRICT):
    self.location = root
    self.judged = JudgedScans(judge)
    self._images = list_nifti_files(root / "imagesTr")
    self._labels = list_nifti_files(root / "labelsTr")
    self.ids = tuple(sorted(self._images))
    self.label_names = read_label_names(root)
    self._check_pairs()

  def load(self, case_id: str) -> NativeCase:
    """Reads image and label of one case.

    Raises:
      UserError: a file is unreadable, the scan cannot be trusted, or the grids of the two differ.
    """
    label_path = self._labels[case_id]
    scan = read_pair(self._images[case_id], label_path, self.judged.judge)
    self.judged.log_once([scan.note, *scan.doubts] if scan.note else scan.doubts)
    return NativeCase(case_id, scan.image, scan.label, str(label_path))

  def grid(self, case_id: str) -> Grid:
    """Reads the header of a case's image.

    Raises:
      UserError: the file is unreadable, or cannot be trusted.
    """
    path = self._images[case_id]
    grid = read_grid(path)
    self.judged.log_once(self.judged.judge.judge_grid(grid, path, path))
    return grid

  def compute_digest(self, case_id: str) -> tuple[str, str]:
    """Returns digests of the bytes of the image and label files."""
    return _digest_file(self._images[case_id]), _digest_file(self._labels[case_id])

  def read_stamp(self, case_id: str) -> tuple[int, ...]:
    """Returns sizes and times of the image and label files."""
    return _stamp_file(self._images[case_id]) + _stamp_file(self._labels[case_id])

  def _check_pairs(self) -> None:
    root = self.location
    if not self._images:
      raise UserError(
        f"{root}: no images found; put images into {root}/imagesTr/NAME.nii.gz and "
        f"their labels into {root}/labelsTr/NAME.nii.gz, under the same names"
      )
    # A missing partner is more likely a mistake than a case to leave out silently.
    alone = sorted(set(self._images) ^ set(self._labels))
    if alone:
      raise UserError(
        f"{root}: {len(alone)} names are in only one of imagesTr and labelsTr: {alone[:5]}; "
        "add the missing files or remove these" + explain_channel_names(alone, self._labels)
      )


class RecordDataset:
  """A data set that the build command of `tfds_pancreas` wrote."""

  def __init__(self, records: "BuiltDataset", judge: Judge = _STRICT):
    self.judged = JudgedScans(judge)
    self._where = {
      case_id: (split, index)
      for split, cases in records.splits.items()
      for index, case_id in enumerate(cases.case_ids)
    }
    self._records = records
    self.location = records.directory
    self.ids = tuple(sorted(self._where))
    self.label_names: Mapping[str, int] = records.labels
    own = {"training": "train", "validation": "validation", "test": "test"}
    # Without all three parts the set's division cannot serve as a fold; the cases then count as
    # one set, which `choose_split` divides.
    complete = all(records.splits.get(split) for split in own.values())
    self.parts: Mapping[str, Sequence[str]] | None = (
      {part: records.splits[split].case_ids for part, split in own.items()} if complete else None
    )

  def load(self, case_id: str) -> NativeCase:
    """Reads the record of one case.

    Raises:
      UserError: the scan cannot be trusted.
    """
    split, index = self._where[case_id]
    record = self._records.splits[split][index]
    affine = record["affine"]
    image, label = Volume(record["image"], affine), Volume(record["label"], affine)
    source = f"{self._records.directory}: {case_id}"
    self.judged.log_once(self.judged.judge.judge_scan(image, source))
    return NativeCase(case_id, image, label, source)

  def grid(self, case_id: str) -> Grid:
    """Reads the grid of a record without decoding its volumes.

    Raises:
      UserError: the record is damaged, or its shape and affine are no grid.
    """
    split, index = self._where[case_id]
    return Grid(*self._records.splits[split].read_geometry(index))

  def compute_digest(self, case_id: str) -> tuple[str, str]:
    """Returns digests of image and label as the record holds them, packed."""
    split, index = self._where[case_id]
    record = self._records.splits[split].read_packed(index)
    image, label = (_digest_values(record[name], record["affine"]) for name in ("image", "label"))
    return image, label

  def read_stamp(self, case_id: str) -> tuple[int, ...]:
    """Returns size and times of the file that holds the record."""
    split, index = self._where[case_id]
    return _stamp_file(self._records.splits[split].find_file(index))


def _stamp_file(path: Path) -> tuple[int, ...]:
  about = path.stat()
  # A program may set a file's time of modification back, but not the last one.
  return about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _digest_file(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_values(packed: Mapping[str, Any], affine: np.ndarray) -> str:
  """Digests the packed values of a volume, with their shape and place."""
  # The same bytes in another shape or place are another volume.
  digest = hashlib.sha256(repr((np.asarray(packed["shape"]).tolist(), affine.tolist())).encode())
  digest.update(packed["value"])
  return digest.hexdigest()
