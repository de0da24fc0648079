r"""What a step's input costs: steps fed by a source against the same step fed one batch for ever.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.input_cost --pairs=60 "--config.data.patch=(32, 32, 32)" \
    --output=benchmarks/results/input_cost.json

Both take forward, augmentation, backward and update. They are timed in turn, in windows of steps.
Each window of a source begins where the last one ended, so that it opens the next cases of the
schedule; untimed steps before it use up what its threads had ready, and its feed goes on beyond it,
so that they work throughout. Scans are prepared before. The median of the paired ratios is given
with its 95 % bootstrap interval.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.inputs import TrainingInputs, open_inputs
from attn_unet_jax.training.mesh import replicate
from attn_unet_jax.training.state import TrainState, create_state
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.result import keep, machine
from benchmarks.windows import READY, one_batch, ratio, seconds, window

_PAIRS = flags.DEFINE_integer("pairs", 30, "Pairs of windows for each source.")
_STEPS = flags.DEFINE_integer("steps", 8, "Steps of a window.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
define_config("experiments/pancreas.py:phantom")

_SETTLING = 2  # steps of a fixed batch before its window

Begin = Callable[[], TrainState]


def main() -> None:
  """Measures, prints and writes."""
  config = CONFIG_FLAGS.read()
  fold = open_fold(config.data)
  module = build_run_network(config, len(fold.mapping.classes) + 1)
  with tempfile.TemporaryDirectory() as folder:
    config = replace_keys(config, {"data.prepared": folder})
    result: dict[str, Any] = {
      "machine": machine(),
      "environment": describe_environment(),
      "steps_per_window": _STEPS.value,
    }
    for source in ("resident", "streaming"):
      of_source = replace_keys(config, {"data.source": source})
      inputs = open_inputs(of_source, module, fold.load, Path(folder))
      result[source] = cost(of_source, module, inputs)
  keep(result, _OUTPUT.value)


def cost(config: RunConfig, module: nn.Module, inputs: TrainingInputs) -> dict[str, Any]:
  """Seconds a step with and without its input, and the ratio."""
  fixed = one_batch(config, module)
  alone = compile_step(config, module, streamed=True)
  fed = alone if inputs.streamed else compile_step(config, module)

  start = replicate(config, create_state(config, module))

  def begin() -> TrainState:  # a step consumes its state
    return jax.block_until_ready(jax.tree.map(jnp.copy, start))

  with_input, without = [], []
  for pair in range(_PAIRS.value + 1):  # the first compiles
    with inputs.source.feeds(window(pair, _STEPS.value)) as feeds:
      full = seconds(fed, begin(), feeds, READY, _STEPS.value)
    bare = seconds(alone, begin(), itertools.repeat(fixed), _SETTLING, _STEPS.value)
    if pair:
      with_input.append(full)
      without.append(bare)
      print_line(f"{config.data.source}: pair {pair}/{_PAIRS.value}, {full / bare:.3f}")
  return {
    "step_s": round(float(np.median(with_input)), 4),
    "step_without_input_s": round(float(np.median(without)), 4),
    "pairs": len(without),
    **ratio(np.array(with_input) / np.array(without)),
  }


if __name__ == "__main__":
  process.run_command(main, CONFIG_FLAGS)
