"""The released V-Net's Dice and its gradient against the written formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.losses import vnet_caffe
from tests.losses.cases import labels_of, logits_of


def test_released_vnet_dice_by_hand():
  """Two voxels of foreground, one found: I = 1, U = 1 + 2."""
  logits, labels = logits_of((0.8, 0.2), (0.4, 0.6), (0.7, 0.3)), labels_of(0, 1, 1)
  assert vnet_caffe.vnet_caffe_dice(logits, labels) == pytest.approx(1 - 2 / 3, abs=1e-5)
  slope = jax.jit(jax.grad(vnet_caffe.vnet_caffe_dice))(logits, labels)[0, :, 0, 0]
  for row, p, g in zip(slope, (0.2, 0.6, 0.3), (0, 1, 1), strict=True):
    rise = 2 * (g * 3 - 2 * p * 1) / 9
    through_softmax = 2 * rise * p * (1 - p)  # +rise on the background, -rise on the foreground
    np.testing.assert_allclose(row, [through_softmax, -through_softmax], atol=1e-5)


def test_released_vnet_dice_of_several_classes(case):
  """The written formula, class by class, against the softmax's own derivative."""
  logits, labels = case
  p, pull = jax.vjp(jax.nn.softmax, logits)
  p = np.asarray(p, np.float64)
  r, cotangent = p.argmax(-1), np.zeros_like(p)
  value = 0.0
  for n in range(2):
    for k in (1, 2):
      g = np.asarray(labels[n]) == k
      overlap, union = np.sum(g & (r[n] == k)), np.sum(g) + np.sum(r[n] == k) + 1e-5
      rise = 2 * (g * union - 2 * p[n, ..., k] * overlap) / union**2 / 2
      cotangent[n, ..., k] -= rise
      cotangent[n, ..., 0] += rise
      value += (1 - 2 * overlap / union) / 2
  ours, slope = jax.jit(jax.value_and_grad(vnet_caffe.vnet_caffe_dice))(logits, labels)
  assert ours == pytest.approx(value, abs=1e-5)
  np.testing.assert_allclose(slope, pull(jnp.asarray(cotangent, jnp.float32))[0], atol=1e-6)


def test_smoothing_by_hand():
  """One voxel, found: I = 1, U = 2 + 1e-5."""
  with jax.enable_x64(True):
    logits = jnp.array([0.0, 1.0]).reshape(1, 1, 1, 1, 2)
    value = float(vnet_caffe.vnet_caffe_dice(logits, labels_of(1)))
  assert value == pytest.approx(1e-5 / (2 + 1e-5), rel=1e-9)
