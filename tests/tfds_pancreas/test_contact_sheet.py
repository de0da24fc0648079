import struct
import zlib

import numpy as np

from tfds_pancreas.contact_sheet import TILE, draw_tile, encode_png, write_contact_sheets

RED = (255, 64, 64)
TEXT = (255, 220, 0)


def read_png(data):
  """Reads the pixels of an unfiltered RGB PNG and verifies its checksums."""
  assert data[:8] == b"\x89PNG\r\n\x1a\n"
  chunks, at = {}, 8
  while at < len(data):
    (size,) = struct.unpack(">I", data[at : at + 4])
    kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
    assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
    chunks[kind], at = body, at + 12 + size
  width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
  assert (depth, colour, list(chunks)[-1]) == (8, 2, b"IEND")
  rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
  assert not rows[:, 0].any()
  return rows[:, 1:].reshape(height, width, 3)


def test_a_picture_survives_its_file():
  pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
  np.testing.assert_array_equal(read_png(encode_png(pixels)), pixels)


def test_a_tile_shows_front_up_and_right_at_the_left():
  image = np.full((TILE, TILE, 3), -160, np.int16)
  image[-20:, -10:] = 240  # at the patient's right front
  label = np.zeros(image.shape, np.uint8)
  label[50:60, 20:40, 1] = 1
  shown = draw_tile(image, label)
  assert (shown[:10, :20] == 255).all()
  assert not shown[10:, :20].any()
  red = (shown == RED).all(axis=-1)
  ys, xs = np.nonzero(red)
  assert (xs.min(), xs.max()) == (TILE - 60, TILE - 51)
  assert (ys.min(), ys.max()) == (TILE - 40, TILE - 21)
  assert red.sum() == 2 * 10 + 2 * 18  # an outline, not an area


def test_the_slice_with_most_of_the_label_is_shown_and_oblong_slices_keep_their_proportions():
  image = np.zeros((40, 20, 4), np.int16)
  label = np.zeros(image.shape, np.uint8)
  label[0, 0, 1], label[10:12, 5:7, 2] = 1, 1
  shown = (draw_tile(image, label) == RED).all(axis=-1)
  ys, xs = np.nonzero(shown)
  assert xs.max() - xs.min() == ys.max() - ys.min() == 7  # 2 voxels of 4 pixels each way


def test_beside_an_oblong_slice_it_is_black():
  image = np.full((40, 20, 2), 240, np.int16)
  shown = draw_tile(image, np.zeros(image.shape, np.uint8))
  lit = (shown == 255).all(axis=-1)
  assert lit[TILE // 4 : 3 * TILE // 4].all()
  assert not shown[: TILE // 4 - 1].any()
  assert not shown[3 * TILE // 4 + 1 :].any()


def test_twenty_cases_make_a_page(tmp_path):
  tiles = [np.full((TILE, TILE, 3), value, np.uint8) for value in range(23)]
  names = write_contact_sheets(tmp_path, tiles)
  first, second = (read_png((tmp_path / name).read_bytes()) for name in names)
  assert first.shape == (4 * TILE, 5 * TILE, 3)
  assert second.shape == (TILE, 5 * TILE, 3)
  assert (first[TILE, 2 * TILE, 0], second[0, 2 * TILE, 0]) == (7, 22)
  assert not second[:, 3 * TILE :].any()


def test_of_a_long_number_the_last_digits_are_written():
  image = np.zeros((8, 8, 1), np.int16)
  label = image.astype(np.uint8)
  last = "0123456789012345678"  # as many as fit
  shown = draw_tile(image, label, last)
  text = (shown == TEXT).all(axis=-1)
  assert text[:, 4:10].any()
  assert text[:, TILE - 12 :].any()
  np.testing.assert_array_equal(draw_tile(image, label, "98765432109" + last), shown)
