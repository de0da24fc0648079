"""The training cases of a run with two data sets."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.working_cases import WorkingCases, count_bytes
from attn_unet_jax.volumes.box import Shape, Slices


@dataclasses.dataclass(frozen=True)
class JoinedCases(Sequence[WorkingCase]):
  """The cases of two data sets, `own` before `also`; no id is in both."""

  own: WorkingCases
  also: WorkingCases

  @property
  def ids(self) -> Sequence[str]:
    """The ids of all cases."""
    return (*self.own.ids, *self.also.ids)

  def __len__(self) -> int:
    return len(self.own) + len(self.also)

  def __getitem__(self, index: Any) -> Any:
    """Returns one case, or a list of the cases of a slice."""
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    place, count = range(len(self))[index], len(self.own)  # counts a negative index from the end
    return self.own[place] if place < count else self.also[place - count]

  def cache_in(self, folder: Path) -> "JoinedCases":
    """Returns these cases with a folder that stores each of them once it is prepared."""
    return JoinedCases(self.own.cache_in(folder), self.also.cache_in(folder))

  def measure_extents(self) -> list[Shape]:
    """Returns the extent of each case in voxels of the working grid, from headers."""
    return [*self.own.measure_extents(), *self.also.measure_extents()]

  def bytes_together(self) -> int:
    """Returns the bytes of all images and labels, each case padded to the largest extent."""
    return count_bytes(self.measure_extents())

  def case_slices(self, case_id: str) -> Slices:
    """Returns the voxels of a scan's working grid that its case covers."""
    return (self.own if case_id in self.own.ids else self.also).case_slices(case_id)


# What a part of a fold is read from.
CaseSequence = WorkingCases | JoinedCases


def get_painted(cases: CaseSequence) -> WorkingCases:
  """Returns the cases to paint, where that is enabled: those of the second set, if there is one."""
  return cases.also if isinstance(cases, JoinedCases) else cases


def take_maps(cases: CaseSequence) -> CaseSequence:
  """Returns cases with label maps in the place of the images of those to paint."""
  maps = dataclasses.replace(get_painted(cases), as_maps=True)
  return JoinedCases(cases.own, maps) if isinstance(cases, JoinedCases) else maps


def count_also(cases: Sequence[WorkingCase]) -> int:
  """Returns how many cases, the last ones, are those of a second data set."""
  return len(cases.also) if isinstance(cases, JoinedCases) else 0
