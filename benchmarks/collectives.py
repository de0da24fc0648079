"""What devices exchange in a compiled program, read from its text."""

import math
import re
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_CALL = re.compile(
  r"= (?P<result>.*?) "
  r"(?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|collective-(?:permute|broadcast))"
  r"(?P<start>-start)?\("
)
# Whose start gives its operand, its result and, on a TPU, two words about the state it is in.
_GIVES_OPERAND = ("all-gather", "collective-permute")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")

_OF_CHANNELS = 2048  # two numbers for each channel of a layer are fewer, a kernel more


class Collective(NamedTuple):
  """One collective operation.

  Attributes:
    kind: HLO's name of it, such as `all-reduce`.
    group: devices that exchange with each other; 2 of a `collective-permute`.
    arrays: type and shape of every result, on one device.
  """

  kind: str
  group: int
  arrays: tuple[tuple[str, tuple[int, ...]], ...]

  @property
  def elements(self) -> int:
    """Numbers in all results, on one device."""
    return sum(math.prod(shape) for _, shape in self.arrays)

  @property
  def bytes(self) -> int:
    """Size of all results, on one device."""
    return sum(_BYTES[kind] * math.prod(shape) for kind, shape in self.arrays)


def collectives(text: str, devices: int) -> list[Collective]:
  """The collectives of a program's compiled text, in the order of the text.

  Args:
    text: `jax.stages.Compiled.as_text()`; a collective that is split into a start and an end, other
      work between them, is counted once.
    devices: for how many it is compiled.
  """
  found = []
  for line in text.splitlines():
    call = _CALL.search(line)
    if call:
      arrays = tuple(
        (kind, tuple(int(n) for n in shape.split(",") if n))
        for kind, shape in _ARRAY.findall(call["result"])
      )
      if call["start"] and call["kind"] in _GIVES_OPERAND:
        arrays = arrays[1:2]
      group = 2 if call["kind"] == "collective-permute" else _group(line, devices)
      found.append(Collective(call["kind"], group, arrays))
  return found


def _group(line: str, devices: int) -> int:
  """Size of the groups, which HLO writes in one of three ways.

  All of them, `{{0,1},{2,3}}`; how many and how large, `[2,2]<=[4]`; or as those axes of a mesh,
  `mesh['a'=4,'b'=2] {'a'}`, over which devices are joined, a part of an axis being `'a':(2)2`.
  """
  counted = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
  if counted:
    return int(counted[1])
  listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
  if listed:
    return len(listed[1].split(","))
  named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
  if named:
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    joined = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
    return math.prod(int(part) if part else sizes[name] for name, part in joined)
  return devices


def purpose(found: Collective) -> str:
  """`halo`; `gradients`, if a kernel's is in it; or `statistics`: sums over channels, losses.

  XLA may make one row of numbers of all that it sums up together.
  """
  if found.kind != "all-reduce":
    return "halo" if found.kind == "collective-permute" else "other"
  largest = max(math.prod(shape) for _, shape in found.arrays)
  return "gradients" if largest > _OF_CHANNELS else "statistics"
