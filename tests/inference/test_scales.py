"""Averages over scaled copies, against what is known of the interpolation."""

import numpy as np
import pytest

from attn_unet_jax.inference.scales import ScaledSystem, parse_scales
from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume
from tests.inference.test_mirrors import Voxelwise

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


class Identity:
  """A network whose answer is its input; it notes the shapes that it sees."""

  def __init__(self):
    self.shapes, self.affines = [], []

  def predict(self, volume):
    self.shapes.append(volume.shape)
    self.affines.append(volume.affine)
    p = volume.array.astype(np.float32) / 1000
    return np.stack([1 - p, p], -1)


def _smooth():
  """Bilinear in the voxels, up to the edge: linear interpolation is exact but for the rim."""
  x, y, z = np.meshgrid(np.arange(20.0), np.arange(30.0), np.arange(10.0), indexing="ij")
  return Volume((10 * x + 5 * y + 7 * z).astype(np.float32), AFFINE)


def test_an_identity_gives_the_input_back():
  volume, system = _smooth(), Identity()
  found = ScaledSystem(system, (0.9, 1.1)).predict(volume)
  assert system.shapes == [(20, 30, 10), (18, 27, 9), (22, 33, 11)]
  # The network is told the spacing that it was trained on, whatever the scale.
  assert all((affine == AFFINE).all() for affine in system.affines)
  inner = (slice(1, -1),) * 3
  np.testing.assert_allclose(found[..., 1][inner], volume.array[inner] / 1000, atol=1e-4)
  np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_the_answer_to_a_mirror_image_is_the_mirror_image():
  rng = np.random.default_rng(0)
  volume = Volume(rng.normal(0, 300, (12, 11, 9)).astype(np.float32), AFFINE)
  system = ScaledSystem(Voxelwise(), (0.8, 1.25))
  for axis in range(3):
    flipped = Volume(np.ascontiguousarray(np.flip(volume.array, axis)), AFFINE)
    found = np.flip(system.predict(flipped), axis)
    np.testing.assert_allclose(found, system.predict(volume), atol=1e-5)


def test_a_larger_copy_looks_larger():
  """A network that counts what it is shown finds s^3 times the voxels in a copy of scale s."""
  array = np.zeros((40, 40, 40), np.int16)
  array[10:30, 10:30, 10:30] = 1000
  seen = []

  class Counting(Identity):
    def predict(self, volume):
      seen.append(int((volume.array > 500).sum()))
      assert volume.array.dtype == np.int16
      return super().predict(volume)

  ScaledSystem(Counting(), (1.1,)).predict(Volume(array, np.eye(4)))
  assert seen == [20**3, 22**3]


def test_scales_are_read_and_refused():
  assert parse_scales([]) == ()
  assert parse_scales(["1.1", " 0.9"]) == (0.9, 1.1)
  for texts, said in (
    (["a"], "'a' is no number from 0.5 to 2 other than 1"),
    (["nan"], "'nan' is no number"),
    (["1"], "'1' is no number from 0.5 to 2 other than 1"),
    (["3"], "'3' is no number"),
    (["1.1", "1.10"], "a scale is there twice"),
  ):
    with pytest.raises(UserError, match=said):
      parse_scales(texts)


def test_a_copy_that_memory_cannot_hold_is_refused(monkeypatch):
  volume, system = _smooth(), Identity()
  # Of two classes 8 bytes and 4 of the image and a padded one; the answer on the scan's own grid.
  needed = 6000 * (8 * (8 + 4) + 8)
  monkeypatch.setattr(memory, "free_bytes", lambda: needed)
  ScaledSystem(system, (2.0,)).predict(volume)
  monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
  with pytest.raises(UserError, match=r"40 x 60 x 20 voxels of the scan scaled by 2 take .*leave"):
    ScaledSystem(system, (2.0,)).predict(volume)
