"""What XLA plans for a compiled program: memory, kernels, and the bytes that these move."""

import re
from typing import Any

import jax
import numpy as np

# Of a compiled program's text: an instruction of the main computation, and what it is.
_INSTRUCTION = re.compile(
  r"^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<result>.*?) (?P<kind>[\w-]+)\((?P<operands>[^)]*)\)"
)
_ARRAY = re.compile(r"(pred|[a-z]+(?P<bits>\d+)[a-z\d]*)\[(?P<shape>[\d,]*)\]")
# What XLA computes without a kernel.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def describe_program(compiled: jax.stages.Compiled) -> dict[str, Any]:
  """Returns what XLA plans for a program: GiB of temporaries, kernels, GiB that they move."""
  memory: Any = compiled.memory_analysis()
  kernels = list_kernels(compiled.as_text() or "")
  return {
    "temporary_gib": round(memory.temp_size_in_bytes / 2**30, 3),
    "kernels": len(kernels),
    "moved_gib": round(sum(kernels.values()) / 2**30, 3),
  }


def list_kernels(text: str) -> dict[str, int]:
  """Lists the kernels of a compiled program: name, and bytes of operands and results.

  Each operand and result counts once, as if it were read or written whole; loops count as one.
  """
  main = text[text.index("\nENTRY ") :].split("\n}", 1)[0]
  sizes, kernels = {}, {}
  for line in main.splitlines()[1:]:
    if not (found := _INSTRUCTION.match(line)):
      continue
    size = sum(_count_bytes(array) for array in _ARRAY.finditer(found["result"]))
    sizes[found["name"]] = size
    if found["kind"] not in _FREE:
      operands = re.findall(r"%([\w.-]+)", found["operands"])
      kernels[found["name"]] = size + sum(sizes.get(operand, 0) for operand in operands)
  return kernels


def _count_bytes(array: re.Match[str]) -> int:
  size = max(1, int(array["bits"] or 8) // 8)
  return size * int(np.prod([int(n) for n in array["shape"].split(",") if n], dtype=np.int64))
