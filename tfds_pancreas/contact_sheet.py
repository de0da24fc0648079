"""Pictures of many cases on one page: an axial slice each, the label's outline on it.

Written as PNG without an imaging library: a header, the rows, two checksums.
"""

import itertools
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

TILE = 160
COLUMNS, ROWS = 5, 4
# The window of Roth et al. 2018, which is also the default of `data.window_hu`.
_WINDOW_HU = (-160.0, 240.0)
_OUTLINE = (255, 64, 64)
_TEXT = (255, 220, 0)
# 3 x 5 pixels a digit, row after row. A font would need an imaging library.
_DIGITS = ("111101101101111", "010110010010111", "111001111100111", "111001111001111",
           "101101111001001", "111100111001111", "111100111101111", "111001001001001",
           "111101111101111", "111101111001111")  # fmt: skip
_MARGIN, _DIGIT_STEP = 4, 8  # pixels


def draw_tile(image: np.ndarray, label: np.ndarray, digits: str = "") -> np.ndarray:
  """Draws the axial slice with most of the label, as a radiologist sees it.

  Args:
    image: HU [X, Y, Z] on canonical axes.
    label: 0 is background, on the image's grid.
    digits: a number to write into the corner; of a long one the last digits, as many as fit.

  Returns:
    RGB uint8 [TILE, TILE, 3], the patient's front up, the right side at the left.
  """
  best = int(np.count_nonzero(label, axis=(0, 1)).argmax())
  places, inside = _sample_square(image.shape[0], image.shape[1])
  low, high = _WINDOW_HU
  grey = (np.clip(image[:, :, best][places], low, high) - low) / (high - low) * 255 * inside
  picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
  # Sampled first, outlined then: an outline of the full slice would lose pixels.
  picture[_find_outline((label[:, :, best][places] > 0) & inside)] = _OUTLINE
  # Canonical axes run to the right and to the front, the rows of a picture down.
  picture = np.ascontiguousarray(picture[::-1, ::-1].swapaxes(0, 1))
  _write_digits(picture, digits)
  return picture


def find_last_number(case_id: str) -> str:
  """Returns the last number in an id, all that a picture can write: '0007' of 'PANCREAS_0007'."""
  numbers = re.findall(r"[0-9]+", case_id)
  return numbers[-1] if numbers else ""


def write_contact_sheets(folder: Path, tiles: Iterable[np.ndarray]) -> list[str]:
  """Writes `contact_sheet_1.png`, ... with COLUMNS x ROWS tiles each.

  Args:
    folder: where.
    tiles: taken page by page, so they need not all exist at a time.

  Returns:
    the names of the files.
  """
  tiles, names = iter(tiles), list[str]()
  while page := list(itertools.islice(tiles, COLUMNS * ROWS)):
    names.append(f"contact_sheet_{len(names) + 1}.png")
    (folder / names[-1]).write_bytes(encode_png(_arrange_tiles(page)))
  return names


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes RGB uint8 [H, W, 3] as a PNG file."""
  height, width = pixels.shape[:2]
  rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: this row is not filtered
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
  chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(_encode_chunk(kind, data) for kind, data in chunks)


def _encode_chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _sample_square(*shape: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
  """Places TILE x TILE samples over a slice, with one step along both axes.

  Returns:
    the nearest places along each axis, and which samples lie on the slice.
  """
  step = max(shape) / TILE
  centred = (np.arange(TILE) - (TILE - 1) / 2) * step
  axes = [np.rint(centred + (n - 1) / 2).astype(int) for n in shape]
  within = [(axis >= 0) & (axis < n) for axis, n in zip(axes, shape, strict=True)]
  places = [np.clip(axis, 0, n - 1) for axis, n in zip(axes, shape, strict=True)]
  return np.ix_(*places), np.logical_and.outer(*within)


def _find_outline(mask: np.ndarray) -> np.ndarray:
  """Returns the pixels of a mask that have a neighbour outside."""
  padded = np.pad(mask, 1)
  inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
  outline: np.ndarray = mask & ~inner
  return outline


def _write_digits(picture: np.ndarray, digits: str) -> None:
  # The last ones tell cases apart: UIDs of DICOM begin alike, and end in up to 39 digits.
  fitting = digits[-((TILE - _MARGIN) // _DIGIT_STEP) :]
  for place, digit in enumerate(fitting):
    glyph = np.array(list(_DIGITS[int(digit)])).reshape(5, 3) == "1"
    left = _MARGIN + _DIGIT_STEP * place
    corner = picture[_MARGIN : _MARGIN + 10, left : left + 6]
    corner[np.kron(glyph, np.ones((2, 2), bool))] = _TEXT  # each of its pixels is 2 x 2


def _arrange_tiles(tiles: Sequence[np.ndarray]) -> np.ndarray:
  rows = -(-len(tiles) // COLUMNS)
  page = np.zeros((rows * TILE, COLUMNS * TILE, 3), np.uint8)
  for index, picture in enumerate(tiles):
    y, x = divmod(index, COLUMNS)
    page[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] = picture
  return page
