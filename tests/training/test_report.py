"""What an epoch's row of the log says."""

import jax
import numpy as np
import pytest

from attn_unet_jax.data.patches import Batch
from attn_unet_jax.training.inputs import PARTS
from attn_unet_jax.training.report import Report
from attn_unet_jax.training.state import create
from tests.line import Line


@pytest.mark.parametrize(
  ("step", "skipped", "rate"), [(4, 0, 0.3), (4, 1, 0.2), (4, 3, 0.0), (4, 4, 0.0)]
)
def test_the_rate_is_that_of_the_last_update(config, step, skipped, rate):
  """Which the schedule counts without those that were left out: 0, 0.1, 0.2, ... here."""
  config.optimizer.learning_rate, config.optimizer.warmup_steps = 1.0, 10
  module, patch = Line(), np.zeros((1, 2, 2, 2), np.float32)
  fixed = {part: [Batch(patch[..., None], patch.astype(np.uint8))] for part in PARTS}
  state = create(config, module).replace(step=np.int32(step), skipped=np.int32(skipped))
  row = Report(config, module, fixed, None, 0).measure(2, jax.device_put(state), 1.5)
  assert row["learning_rate"] == pytest.approx(rate)
  assert (row["epoch"], row["train_seconds"], row["validation_dsc"]) == (2, 1.5, None)
