"""The cases of one part of a fold on the working grid, each prepared when it is read."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.cases.boxes import Boxes, box_voxels
from attn_unet_jax.cases.cache import digest_recipe, load_or_prepare
from attn_unet_jax.cases.dataset import Dataset
from attn_unet_jax.cases.digests import digest_case
from attn_unet_jax.cases.map_case import prepare_map
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.partial import mark_rest
from attn_unet_jax.cases.prepare import WorkingCase, prepare_case, working_grid_for
from attn_unet_jax.cases.sparse import keep_labelled_slices
from attn_unet_jax.labels import LabelMapping
from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.volumes.box import Box, Shape, Slices
from attn_unet_jax.volumes.shear import straight_grid


@dataclasses.dataclass(frozen=True)
class WorkingCases(Sequence[WorkingCase]):
  """A sequence of cases that are prepared whenever they are read; with `folder`, once.

  Attributes:
    ids: the cases.
    dataset: the data set that they are read from.
    mapping: the classes of their label values.
    data: how the working grid is reached.
    thin: whether labels are dropped as `data.labelled_slices` says.
    folder: the folder of prepared cases, or None.
    boxes: the box of each case; None: whole scans.
    as_maps: whether the label map takes the place of the image, to be painted on in the step.
    place: of the data set among those of the run.
  """

  ids: Sequence[str]
  dataset: Dataset
  mapping: LabelMapping
  data: DataOptions
  thin: bool = False
  folder: Path | None = None
  boxes: Boxes | None = None
  as_maps: bool = False
  place: int = 0

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: Any) -> Any:
    """Returns one case, or the cases of a slice."""
    # No case is read for a slice.
    if isinstance(index, slice):
      return dataclasses.replace(self, ids=self.ids[index])
    case_id = self.ids[index]
    case = self._load_cached(case_id) if self.folder else self._prepare_case(case_id)
    # Labels are dropped after the cache, so that one file serves every `data.labelled_slices`.
    case = keep_labelled_slices(case, self.data) if self.thin else case
    return mark_rest(case, self.mapping, self.place)

  def cache_in(self, folder: Path) -> "WorkingCases":
    """Returns these cases with a folder that stores each of them once it is prepared."""
    return dataclasses.replace(self, folder=folder)

  def bytes_together(self) -> int:
    """Returns the bytes of all images and labels, each case padded to the largest extent.

    Only headers are read.
    """
    return count_bytes(self.measure_extents())

  def measure_extents(self) -> list[Shape]:
    """Returns the extent of each case in voxels of the working grid, from headers."""
    # More threads than cores, since reading headers is mostly waiting for the disk.
    with ThreadPoolExecutor(min(16, 4 * count_usable_cores())) as threads:
      parts = list(threads.map(self.case_slices, self.ids))
    return [(x.stop - x.start, y.stop - y.start, z.stop - z.start) for x, y, z in parts]

  def case_slices(self, case_id: str) -> Slices:
    """Returns the voxels of a scan's working grid that its case covers: all, or its box.

    Raises:
      UserError: memory cannot hold the grid, or the box lies outside the scan.
    """
    grid = straight_grid(self.dataset.grid(case_id))
    working = working_grid_for(grid, self.data, case_id)
    if box := self._find_box(case_id):
      return box_voxels(box, working, self.data.patch, case_id)
    x, y, z = (slice(0, n) for n in working.shape)
    return x, y, z

  def _find_box(self, case_id: str) -> Box | None:
    return self.boxes[case_id] if self.boxes else None

  def _prepare_case(self, case_id: str) -> WorkingCase:
    prepare = prepare_map if self.as_maps else prepare_case
    return prepare(self.dataset.load(case_id), self.mapping, self.data, self._find_box(case_id))

  def _load_cached(self, case_id: str) -> WorkingCase:
    assert self.folder is not None
    data, mapping = self.data, self.mapping
    # Only what changes a prepared case, so that a change of another option reuses the file. The box
    # grows to the patch, which therefore matters inside a box alone.
    recipe: tuple[object, ...] = (data.spacing_mm, data.blur_mm, data.label_resampling)
    if box := self._find_box(case_id):
      recipe += (box, data.patch)
    # Another run may not accept what this one does, and must not find it prepared.
    if data.acceptance:
      recipe += (sorted(data.acceptance),)
    if self.as_maps:
      recipe += ("materials",)
    if data.foreground_choice != "voxels":
      recipe += (data.foreground_choice,)
    known = (*mapping.values, mapping.unlabelled, mapping.background)
    # Sorted, because the repr of a set depends on more than its values.
    values = [sorted(values) for values in known]
    # By content, since a corrected label may have the size and time of the one before: `.nii` files
    # of a scan are equally long, and archives may give all files one time.
    content = digest_case(self.dataset, case_id)
    name = digest_recipe(recipe, values, mapping.rest_is_background, content.image, content.label)
    return load_or_prepare(self.folder, case_id, name, lambda: self._prepare_case(case_id))


def count_bytes(extents: Sequence[Shape]) -> int:
  """Returns the bytes of images and labels of these extents, each padded to the largest one."""
  voxels = len(extents) * int(np.prod(np.max(extents, axis=0), dtype=np.int64))
  return voxels * (np.dtype(np.int16).itemsize + np.dtype(np.uint8).itemsize)
