"""The patch of the validation cases that is shown, and what is drawn of it."""

import io

import numpy as np
import pytest
from PIL import Image

from attn_unet_jax.drawing.gates import PatchLook, draw_patch
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.training import watched_patch
from attn_unet_jax.training.watched_patch import WatchedPatch


@pytest.fixture
def drawn(monkeypatch):
  """What is handed over to be drawn."""
  found = []
  monkeypatch.setattr(
    watched_patch, "draw_patch", lambda title, look, spacing: found.append((title, look, spacing))
  )
  return found


def test_the_patch_with_most_of_the_organ_is_kept_without_its_margin(drawn):
  label = np.zeros((2, 2, 8, 8, 8), np.uint8)
  label[1, 0, 2:6, 2:6, 2:6] = 1
  label[0, 1] = UNLABELLED  # which is no organ, however much there is
  image = np.arange(label.size, dtype=np.float32).reshape(*label.shape, 1)
  batches = [NetworkInput(*one) for one in zip(image, label, strict=True)]
  watched = WatchedPatch(batches, (2, 2, 2), 3.0)
  for number in range(2):
    prediction = np.full((2, 4, 4, 4), number, np.uint8)
    gate = np.full((2, 2, 2, 2), 0.25 * (number + 1), np.float32)
    watched.keep(number, prediction, {"a": gate, "odd": np.ones((2, 3, 4, 4), np.float32)})
  watched.draw("title")
  ((title, look, spacing),) = drawn
  assert (title, spacing) == ("title", [3.0] * 3)
  np.testing.assert_array_equal(look.image, image[1, 0, 2:6, 2:6, 2:6, 0])
  assert (look.truth == 1).all()
  assert (look.prediction == 1).all()
  assert [*look.gates] == ["a"]
  assert (look.gates["a"] == 0.5).all()


def test_nothing_is_drawn_before_anything_was_seen(drawn):
  assert WatchedPatch([], (0, 0, 0), 3.0).draw("title") == b""
  label = np.zeros((1, 4, 4, 4), np.uint8)
  assert WatchedPatch([NetworkInput(label[..., None], label)], (0, 0, 0), 3.0).draw("") == b""


def test_a_gate_is_yellow_where_it_is_open():
  """Open at the patient's right, which is at the left of a slice; five tiles in two rows."""
  label = np.zeros((8, 8, 4), np.uint8)
  gate = np.zeros((4, 4, 2), np.float32)
  gate[2:] = 0.5
  image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
  look = PatchLook(image, label, label, dict.fromkeys("abc", gate))
  picture = np.asarray(Image.open(io.BytesIO(draw_patch("title", look, [2.0] * 3)))).astype(int)
  assert picture.shape == (34 + 2 * (300 + 26 + 8) + 8, 4 * 308 + 8, 3)
  tile = picture[34 + 26 : 34 + 26 + 300, 8 + 2 * 308 : 8 + 2 * 308 + 300]
  left, right = tile[:, :100].mean((0, 1)), tile[:, 200:].mean((0, 1))
  assert left[0] - left[2] > 80
  assert abs(right[0] - right[2]) < 10
