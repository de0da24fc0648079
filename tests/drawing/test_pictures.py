"""Whole pictures: they are read back, and looked at where something must stand."""

import io

import numpy as np
import pytest
from PIL import Image

from attn_unet_jax.drawing.canvas import Canvas
from attn_unet_jax.drawing.colours import BLUE, GREEN, ORANGE, SKY_BLUE, VERMILION, choose_colour
from attn_unet_jax.drawing.contact_sheet import (
  TILE,
  SheetCase,
  draw_largest_slice,
  write_contact_sheets,
)
from attn_unet_jax.drawing.curves import choose_ticks, draw_curves, list_points
from attn_unet_jax.drawing.preview import draw_preview
from attn_unet_jax.runs.metrics_csv import COLUMNS
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.orientation import to_canonical
from benchmarks.orientations import on_axes
from tests.drawn_ct import drawn_ct, drawn_label


def open_png(data):
  return np.asarray(Image.open(io.BytesIO(data)))


def count(pixels, colour):
  return int((pixels == colour).all(axis=-1).sum())


def test_a_preview_shows_seven_slices_and_its_legend_whatever_the_axes():
  values = drawn_label().array.copy()
  values[14:16, 25:27, 9:11] = 2
  label = Volume(values, drawn_label().affine)
  data = draw_preview("scan<b>\n.nii.gz", drawn_ct(), label, ("pancreas", "tumour"))
  pixels = open_png(data)
  assert pixels.shape == (800, 1280, 3)
  assert count(pixels[:86], ORANGE) > 100  # the legend's box
  assert count(pixels[:86], SKY_BLUE) > 100
  for left in (0, 430, 860):  # the three planes
    assert count(pixels[86:440, left : left + 420], ORANGE) > 20
  assert count(pixels[440:], ORANGE) > 500
  turned = draw_preview(
    "scan<b>\n.nii.gz", on_axes(drawn_ct(), "LPS"), on_axes(label, "SRA"), ("pancreas", "tumour")
  )
  np.testing.assert_array_equal(open_png(turned), pixels)


def test_the_legend_of_a_preview_has_the_expected_dsc_of_a_class():
  plain, *judged = (
    open_png(draw_preview("a", drawn_ct(), drawn_label(), ("pancreas",), expected_dsc=expected))
    for expected in ({}, {"pancreas": 0.46}, {"liver": 0.46})
  )
  assert (judged[0][40:86] != plain[40:86]).any()
  np.testing.assert_array_equal(judged[0][86:], plain[86:])
  np.testing.assert_array_equal(judged[1], plain)


def test_a_preview_of_an_empty_mask_shows_the_scan():
  empty = Volume(drawn_label().array * 0, drawn_label().affine)
  pixels = open_png(draw_preview("a", drawn_ct(), empty, ("pancreas",)))
  assert count(pixels[86:], ORANGE) == 0
  assert (pixels[86:440] > 200).any()


def test_sheets_have_eight_cases_each_and_no_case_shifts_another(tmp_path):
  picture = draw_largest_slice(
    to_canonical(drawn_ct()), drawn_label().array.astype(np.uint16), (8, 8, 8)
  )
  assert max(picture.shape) == TILE - 8
  assert count(picture, choose_colour(1)) > 50
  cases = [SheetCase(n, f"case{n}", picture, {"pancreas": 49.15}) for n in range(1, 10)]
  names = write_contact_sheets(tmp_path, cases)
  assert names == ["contact_sheet_1.png", "contact_sheet_2.png"]
  first, second = (open_png((tmp_path / name).read_bytes()) for name in names)
  assert (first.shape, second.shape) == ((800, 1280, 3), (400, 1280, 3))
  np.testing.assert_array_equal(first[4:316, 4:316], picture)
  np.testing.assert_array_equal(first[404:716, 964:1276], picture)
  assert second[:, TILE:].max() == 0


def test_many_classes_end_in_how_many_are_left_out(tmp_path):
  picture = np.zeros((TILE, TILE, 3), np.uint8)
  many = {f"organ number {n}": float(n) for n in range(40)}
  (name,) = write_contact_sheets(tmp_path, [SheetCase(1, "n" * 500, picture, many)])
  pixels = open_png((tmp_path / name).read_bytes())
  assert pixels.shape == (400, 1280, 3)
  assert pixels[:, TILE:].max() == 0  # nothing runs into the next case


def make_rows(losses, dsc):
  return [
    {**dict.fromkeys(COLUMNS, "0.5"), "epoch": str(n), "train_seg_loss": loss, "validation_dsc": d}
    for n, (loss, d) in enumerate(zip(losses, dsc, strict=True), 1)
  ]


def test_curves_are_in_their_colours_and_what_was_not_measured_is_left_out():
  rows = make_rows(["0.9", "0.4", "0.2"], ["", "0.5", ""])
  assert list_points(rows, "validation_dsc") == [(2, 0.5)]
  pixels = open_png(draw_curves("run", rows))
  assert pixels.shape == (800, 1280, 3)
  # Inside of the diagrams, beside which the legend has the same colours.
  assert count(pixels[:, 96:1080], BLUE) > 300
  assert count(pixels[:, 96:1080], VERMILION) in range(20, 90)  # one dot
  bare = open_png(draw_curves("run", make_rows(["nan"], [""])))
  assert count(bare[:, 96:1080], BLUE) == 0
  assert count(bare[:, 96:1080], GREEN) > 20


def test_the_highest_value_is_drawn_highest():
  pixels = open_png(draw_curves("run", make_rows(["0.9", "0.1"], ["", ""])))
  rows, columns = np.nonzero((pixels[:, 96:1080] == BLUE).all(axis=-1))
  assert rows[columns.argmin()] < rows[columns.argmax()]


@pytest.mark.parametrize(
  ("ends", "ticks"),
  [
    ((1, 8), [1, 2, 3, 4, 5, 6, 7, 8]),
    ((0, 1), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
    ((1, 1100), [200, 400, 600, 800, 1000]),
    ((3, 3), [3]),
  ],
)
def test_ticks_are_round(ends, ticks):
  assert choose_ticks(*ends) == pytest.approx(ticks)


def test_a_long_text_is_cut_in_its_middle():
  canvas = Canvas(300, 40)
  assert canvas.write("PANCREAS_" * 40, 0, 0, width=200) <= 200
  assert open_png(canvas.encode())[:, 210:].max() == 0
