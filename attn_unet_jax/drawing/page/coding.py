"""Writes a volume as text, small enough to embed in a page."""

import base64
import zlib

import numpy as np


def encode_volume(array: np.ndarray) -> str:
  """Encodes a uint8 volume [X, Y, Z] as base64 of zlib of differences along X, Z slowest."""
  rows = np.ascontiguousarray(array.T)
  # Neighbours are alike, so that their differences (modulo 256) compress better than they do.
  changes = np.diff(rows, axis=-1, prepend=np.uint8(0))
  return base64.b64encode(zlib.compress(changes.tobytes(), 9)).decode()
