"""The agreement of members, counted by hand."""

import numpy as np
import pytest

from attn_unet_jax.inference.agreement import MemberAgreement


def _labels(*values):
  return np.array(values, np.uint8).reshape(2, 2, 2)


def test_a_class_that_a_member_misses_and_one_that_nobody_sees():
  mean = _labels(1, 1, 1, 1, 2, 2, 0, 0)
  equal, other = mean.copy(), _labels(1, 1, 0, 0, 0, 0, 0, 0)
  agreement = MemberAgreement()
  agreement.add([equal, other], mean, 4)
  # 2 * 2 / (4 + 2) of the first; nothing of the second; both without the third.
  assert agreement.measure() == pytest.approx([(1 + 2 / 3) / 2, 0.5, 1.0])
  # A second prediction, in which both are equal: 8 and 6 of voxels agree.
  agreement.add([mean, mean], mean, 4)
  assert agreement.measure() == pytest.approx([(1 + 2 * 6 / 14) / 2, (1 + 2 * 2 / 6) / 2, 1.0])
