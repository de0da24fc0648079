"""Averages over mirror images, against sums by hand."""

import itertools

import numpy as np
import pytest

from attn_unet_jax.inference.mirrors import MirroredSystem, find_sided_classes, parse_mirrors
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def volume():
  return Volume(np.random.default_rng(0).normal(0, 300, (5, 6, 7)).astype(np.float32), AFFINE)


class Voxelwise:
  """A network that answers each voxel alone; its answer is not its caller's to change."""

  def __init__(self):
    self.seen = []

  def predict(self, volume):
    self.seen.append(volume.array.copy())
    np.testing.assert_array_equal(volume.affine, AFFINE)
    p = 1 / (1 + np.exp(-volume.array / np.float32(77)))
    answer = np.stack([1 - p, p], -1).astype(np.float32)
    answer.flags.writeable = False
    return answer


class Positional:
  """A network that knows where it looks: its answer is one for every volume of a shape."""

  def __init__(self, shape):
    self.answer = np.random.default_rng(1).random((*shape, 2), np.float32)

  def predict(self, volume):
    return self.answer


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_what_is_seen_voxel_by_voxel_is_not_changed_by_a_bit(volume, axes):
  alone, system = Voxelwise(), Voxelwise()
  found = MirroredSystem(system, axes).predict(volume)
  np.testing.assert_array_equal(found, alone.predict(volume))
  assert found.dtype == np.float32
  assert len(system.seen) == 2 ** len(axes)
  wanted = {
    np.flip(volume.array, some).tobytes()
    for count in range(len(axes) + 1)
    for some in itertools.combinations(axes, count)
  }
  assert {array.tobytes() for array in system.seen} == wanted


def test_mirrored_answers_are_mirrored_back_and_averaged(volume):
  system = Positional(volume.shape)
  a = system.answer
  found = MirroredSystem(system, (0, 2)).predict(volume)
  by_hand = (a + a[::-1] + a[:, :, ::-1] + a[::-1, :, ::-1]) / 4
  np.testing.assert_allclose(found, by_hand, rtol=1e-6)
  assert abs(found - a).max() > 0.1
  np.testing.assert_array_equal(
    MirroredSystem(system, (1,)).predict(volume)[2, 1, 3], (a[2, 1, 3] + a[2, 4, 3]) / 2
  )


@pytest.mark.parametrize(
  ("text", "axes"),
  [("", ()), ("x", (0,)), ("x,y,z", (0, 1, 2)), ("zy", (1, 2)), ("Z, x", (0, 2)), ("xx", (0,))],
)
def test_axes_are_read(text, axes):
  assert parse_mirrors(text) == axes


def test_what_is_no_axis_is_refused():
  with pytest.raises(UserError, match=r"--tta=x,w: 'w' is no axis; they are x \(left and right\)"):
    parse_mirrors("x,w")


@pytest.mark.parametrize(
  ("name", "is_sided"),
  [
    ("kidney_left", True),
    ("Left kidney", True),
    ("rightLung", True),
    ("kidney-R", True),
    ("lung_l", True),
    ("pancreas", False),
    ("vertebra_L1", False),
    ("bright", False),
    ("liver", False),
  ],
)
def test_classes_of_one_side_are_found(name, is_sided):
  assert find_sided_classes([name]) == ([name] if is_sided else [])


@pytest.mark.parametrize(
  "pair",
  [
    ("rkid", "lkid"),
    ("rad", "lad"),
    ("RAG", "LAG"),
    ("LKidney", "RKidney"),
    ("leftkidney", "rightkidney"),
    ("kidneyleft", "kidneyright"),
    ("kidl", "Kidr"),
    ("nierelinks", "niererechts"),
  ],
)
def test_two_classes_of_which_each_is_the_others_mirror_image_are_found(pair):
  assert find_sided_classes(["pancreas", *pair, "spleen"]) == list(pair)
  # One alone may be called so for another reason.
  assert not find_sided_classes(["pancreas", pair[0], "spleen"])


def test_names_that_begin_or_end_with_a_side_s_letter_are_no_sides():
  classes = ["liver", "rectum", "lung", "rectal", "gall_bladder", "colon", "bladder", "leftover"]
  assert not find_sided_classes(classes)
