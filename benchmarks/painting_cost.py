r"""Measures what painting takes of a training step, in CPU time.

  python -m benchmarks.painting_cost [PATCH [BATCH [FEATURE_SCALE]]]

Trains the Attention U-Net on a map that is drawn, once painted and once on a stored image, and
paints alone. CPU time of the process, not wall time, so that other work on the machine counts
little. The defaults, 64, 2 and 8, need 2 GB and some minutes of two cores.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.painting.material_map import find_materials
from attn_unet_jax.patches.batch import make_training_batch
from attn_unet_jax.patches.device_source import ResidentSet, make_resident
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.state import create_state
from attn_unet_jax.workflows.network import build_run_network
from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.phantom_ct.anatomy import draw_label_map

_STEPS = 4
_SPACING = (3.0, 3.0, 3.0)


def main() -> None:
  """Prints seconds of CPU for a step, for its input, and what painting adds, as JSON."""
  patch, batch, scale = [*map(int, sys.argv[1:4]), *(64, 2, 8)[len(sys.argv) - 1 :]]
  config = replace_keys(
    RunConfig(augment=Augmentation(rotate_deg=(15.0, 15.0, 15.0), deform_sd=(1.5, 1.5, 1.5))),
    {
      "data.patch": (patch,) * 3,
      "data.spacing_mm": _SPACING[0],
      "train.batch_size": batch,
      "model.feature_scale": float(scale),
    },
  )
  labels = draw_label_map((7, 2), (110, 100, 90), _SPACING)[0]
  painted = replace_keys(config, {"painting.enabled": True})
  drawn = {"painting.clutter": (0.1, 0.9), "painting.lesions": 0.7}
  materials = find_materials(labels, _SPACING)
  stored = _measure(config, labels.astype(np.int16), labels)
  found = {
    "painted": _measure(painted, materials, labels),
    "with clutter and lesions": _measure(replace_keys(painted, drawn), materials, labels),
  }
  added = {
    name: {
      **times,
      "added_s": round(times["input_s"] - stored["input_s"], 3),
      "share_of_step": round((times["input_s"] - stored["input_s"]) / times["step_s"], 3),
    }
    for name, times in found.items()
  }
  print(json.dumps({"stored": stored, **added}))


def _measure(config: RunConfig, image: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Measures a step, and the making of its batch alone, in seconds of CPU."""
  label = (labels == ORGANS["pancreas"]).astype(np.uint8)
  data = make_resident([WorkingCase("a", image, label, 0.0, 1.0)], config.data.patch)
  make_batch: Callable[[ResidentSet, Any], Any] = jax.jit(
    lambda data, step: make_training_batch(config, data, step)
  )
  module = build_run_network(config, 2)
  step, state = compile_step(config, module), create_state(config, module)
  state, _ = step(state, data)
  jax.block_until_ready((state, make_batch(data, 0)))
  begun = time.process_time()
  for _ in range(_STEPS):
    state, _ = step(state, data)
  jax.block_until_ready(state)
  between = time.process_time()
  for number in range(_STEPS):
    jax.block_until_ready(make_batch(data, number))
  done = time.process_time()
  return {
    "step_s": round((between - begun) / _STEPS, 3),
    "input_s": round((done - between) / _STEPS, 3),
  }


if __name__ == "__main__":
  main()
