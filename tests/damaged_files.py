"""Damage as a bad disk, a broken transfer or an editor does it."""

import numpy as np

_LENGTHS = (b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4))


def damage_bytes(data: bytes, rng: np.random.Generator, header_bytes: int, first: int = 0) -> bytes:
  """Flips, replaces, deletes and inserts bytes, most of them in the header."""
  changed = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    end = len(changed) if rng.random() < 0.3 else min(len(changed), header_bytes)
    at, size = int(rng.integers(first, end)), int(rng.integers(1, 9))
    operation = rng.integers(5)
    if operation == 0:
      changed[at] ^= 1 << int(rng.integers(8))
    elif operation == 1:
      changed[at] = int(rng.integers(256))
    elif operation == 2:
      del changed[at : at + size]
    elif operation == 3:
      changed[at:at] = rng.bytes(size)
    else:
      changed[at : at + 4] = _LENGTHS[int(rng.integers(4))]
  return bytes(changed)
