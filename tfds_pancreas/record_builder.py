"""The base of every builder: cases in, sharded records out, on one machine or many.

It stands in for TFDS's own generation, which gathers 1 GB of records in memory and then needs
TensorFlow for what it puts on disk, and whose Beam pipeline sends every volume through the runner.
Here each worker writes what it makes, memory is one case a worker, and the files have equal bytes
for any number of workers and for Beam.
"""

import abc
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from attn_unet_jax.runtime.console import watch_progress
from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.build_lock import hold_build_lock
from tfds_pancreas.case_parts import (
  CasePart,
  MadeCase,
  PartWriter,
  ShardPlan,
  count_finished_parts,
  divide_into_shards,
  read_part,
  write_shard,
)
from tfds_pancreas.checked_case import CaseInput
from tfds_pancreas.record_files import FILE_FORMAT
from tfds_pancreas.workers import (
  ForEach,
  choose_worker_count,
  make_beam_for_each,
  make_local_for_each,
)


class RecordBuilder(FileReaderBuilder):
  """A builder of records whose cases are made one by one, by a function of each alone.

  Args:
    workers: processes that make cases at a time; None decides by cores and memory.
    file_format: ArrayRecord, which is all that is written.
    options: TFDS's own.

  Attributes:
    doubts: lines about cases that were used although something is doubtful about them; set by a
      build.

  Raises:
    UserError: another file format.
  """

  doubts: Sequence[str] = ()

  def __init__(self, *, workers: int | None = None, file_format: str = FILE_FORMAT, **options: Any):
    if file_format != FILE_FORMAT:
      raise UserError(f"file_format={file_format}: these data sets are written as {FILE_FORMAT}")
    self._workers = workers
    super().__init__(file_format=file_format, **options)

  @abc.abstractmethod
  def list_cases(self, manual_dir: Path | None) -> Mapping[str, Sequence[CaseInput]]:
    """Lists the cases to be made, by split."""

  # `tfds build` loads a builder's own module by another name, by which no worker could unpickle
  # what it defines.
  @abc.abstractmethod
  def get_case_maker(self) -> Callable[[Any], MadeCase]:
    """Returns a function that can be pickled, from a case of `list_cases` to the case made.

    Neither the function nor the cases may be defined in the builder's own module.
    """

  def review_parts(self, folder: Path, parts: Sequence[CasePart]) -> None:
    """Looks at what is known of all cases, before any shard is written.

    Args:
      folder: where the data set's own files go.
      parts: of all cases.

    Raises:
      UserError: the data set cannot be built from them.
    """

  def download_and_prepare(self, **options: Any) -> None:
    """Builds the data set as TFDS does, but one build at a time.

    Raises:
      UserError: another process is building this data set.
    """
    with hold_build_lock(Path(self.data_dir)):
      super().download_and_prepare(**options)

  def _download_and_prepare(
    self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
  ) -> None:
    needs_files = self.MANUAL_DOWNLOAD_INSTRUCTIONS
    found = self.list_cases(Path(dl_manager.manual_dir) if needs_files else None)
    folder = Path(self.data_dir)  # TFDS renames it at the end; until then it is called incomplete
    for_each = self._choose_for_each(download_config)
    parts = self._make_parts(folder / "parts", found, for_each)
    self.review_parts(folder, [part for split in parts.values() for part in split])
    self.info.set_splits(tfds.core.SplitDict(self._write_splits(parts, for_each)))
    shutil.rmtree(folder / "parts")

  def _choose_for_each(self, settings: tfds.download.DownloadConfig) -> ForEach:
    if settings.beam_runner or settings.beam_options:
      return make_beam_for_each(settings.beam_runner, settings.beam_options)
    return make_local_for_each(self._workers or choose_worker_count())

  def _make_parts(
    self, folder: Path, found: Mapping[str, Sequence[CaseInput]], for_each: ForEach
  ) -> dict[str, list[CasePart]]:
    """Makes every case and returns what is known of each, by split."""
    folder.mkdir()
    jobs = list(enumerate(case for cases in found.values() for case in cases))
    _require_unique_ids(case.id for _, case in jobs)
    serializer = tfds.core.ExampleSerializer(self.info.features.get_serialized_info())
    name = f"{self.name}/{self.builder_config.name}"
    # Counted by the files: on Beam no worker has another way to tell this process.
    with watch_progress(name, len(jobs), lambda: count_finished_parts(folder)):
      for_each(PartWriter(self.get_case_maker(), serializer, folder), jobs)
    # Parts are numbered through all splits, in the order of `found`.
    parts = (read_part(folder, number) for number, _ in jobs)
    return {split: [next(parts) for _ in cases] for split, cases in found.items()}

  def _write_splits(
    self, parts: Mapping[str, Sequence[CasePart]], for_each: ForEach
  ) -> list[tfds.core.SplitInfo]:
    """Writes all shards; a split of which no case can be used is left out."""
    splits: list[tfds.core.SplitInfo] = []
    shards: list[ShardPlan] = []
    for split, every in parts.items():
      good = [part for part in every if part.size]
      if not good:
        continue
      template = self._get_filename_template(split)
      division = divide_into_shards(good, self.builder_config.shards)
      paths = template.sharded_filepaths(num_shards=len(division))
      shards += [ShardPlan(Path(path), mine) for path, mine in zip(paths, division, strict=True)]
      splits.append(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[len(mine) for mine in division],
          num_bytes=sum(part.size for part in good),
          filename_template=template,
        )
      )
    # Those of all splits at once, so that no worker waits for the end of a split.
    for_each(write_shard, shards)
    return splits


def _require_unique_ids(ids: Iterable[str]) -> None:
  # Folds name cases by their ids: of two with one id, one could train and the other test.
  twice = sorted(case for case, times in Counter(ids).items() if times > 1)
  if twice:
    raise UserError(f"--manual_dir: {len(twice)} cases are there twice: {twice[:5]}; rename one")
