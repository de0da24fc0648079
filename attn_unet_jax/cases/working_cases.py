"""The cases of one part of a fold on the working grid, each made when it is asked for."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.cases.boxes import Boxes, box_voxels
from attn_unet_jax.cases.cache import digest_recipe, load_or_prepare
from attn_unet_jax.cases.dataset import Dataset
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase, prepare_case, working_grid_for
from attn_unet_jax.cases.sparse import keep_labelled_slices
from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.volumes.box import Box, Slices
from attn_unet_jax.volumes.orientation import canonical_grid


@dataclasses.dataclass(frozen=True)
class WorkingCases(Sequence[WorkingCase]):
  """Prepares a case whenever it is asked for; with `folder`, only the first time.

  Attributes:
    ids: the cases.
    dataset: where they are read.
    mapping: what their labels mean.
    data: how the working grid is reached.
    thin: whether labels are forgotten as `data.labelled_slices` says.
    folder: where prepared cases are kept, or None.
    boxes: the part of each case that is worked on; None: all of it.
  """

  ids: Sequence[str]
  dataset: Dataset
  mapping: LabelMapping
  data: DataOptions
  thin: bool = False
  folder: Path | None = None
  boxes: Boxes | None = None

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: Any) -> Any:
    """One case; for a slice, those cases."""
    if isinstance(index, slice):
      return dataclasses.replace(self, ids=self.ids[index])
    case_id = self.ids[index]
    case = self._kept(case_id) if self.folder else self._prepare(case_id)
    return keep_labelled_slices(case, self.data) if self.thin else case

  def kept_in(self, folder: Path) -> "WorkingCases":
    """The same cases, kept in a folder once they are prepared."""
    return dataclasses.replace(self, folder=folder)

  def bytes_together(self) -> int:
    """Size of all cases on one array each, the smaller ones padded to the largest extent.

    From the headers: no scan is read.
    """
    with ThreadPoolExecutor(min(16, 4 * count_usable_cores())) as threads:
      parts = list(threads.map(self.part, self.ids))
    extents = [[along.stop - along.start for along in part] for part in parts]
    voxels = len(extents) * int(np.prod(np.max(extents, axis=0), dtype=np.int64))
    return voxels * (np.dtype(np.int16).itemsize + np.dtype(np.uint8).itemsize)

  def part(self, case_id: str) -> Slices:
    """The voxels of a scan's working grid that its case has: all, or those of the box.

    Raises:
      UserError: memory cannot hold that grid, or the box lies outside the scan.
    """
    grid = canonical_grid(self.dataset.grid(case_id))
    working = working_grid_for(grid, self.data, case_id, in_box=self.boxes is not None)
    if box := self._box(case_id):
      return box_voxels(box, working, self.data.patch, case_id)
    x, y, z = (slice(0, n) for n in working.shape)
    return x, y, z

  def _box(self, case_id: str) -> Box | None:
    return self.boxes[case_id] if self.boxes else None

  def _prepare(self, case_id: str) -> WorkingCase:
    return prepare_case(self.dataset.load(case_id), self.mapping, self.data, self._box(case_id))

  def _kept(self, case_id: str) -> WorkingCase:
    assert self.folder is not None
    data, mapping = self.data, self.mapping
    recipe: tuple[object, ...] = (data.spacing_mm, data.blur_mm, data.label_resampling)
    if box := self._box(case_id):
      recipe += (box, data.patch)
    known = (*mapping.values, mapping.unlabelled, mapping.background)
    values = [sorted(values) for values in known]
    name = digest_recipe(
      recipe, values, mapping.rest_is_background, self.dataset.fingerprint(case_id)
    )
    return load_or_prepare(self.folder, case_id, name, lambda: self._prepare(case_id))
