r"""The training step with each change of `benchmarks.candidates` against the step as it is.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.step_candidates --config=experiments/pancreas.py \
    --config.data.dataset=phantom_ct/demo --config.model.dtype=bfloat16 \
    --output=benchmarks/results/step_candidates.json

On a GPU: all steps on one fixed batch, in turn, and the ratios by turns. With --target=h200 the
steps are compiled for a GPU that is not here (`make install-targets`) and nothing is run: the JSON
then has the memory that XLA plans, the kernels of a step, and the bytes that these read and write.
"""

import itertools
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.training import topology
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import replicate
from attn_unet_jax.training.state import create_state
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.candidates import CANDIDATES, put_in_place
from benchmarks.planned_kernels import describe_program
from benchmarks.result import keep, machine
from benchmarks.windows import one_batch, ratio, seconds

_PAIRS = flags.DEFINE_integer("pairs", 20, "Turns of all steps.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 8, "Timed steps of a turn.", lower_bound=1)
_ONLY = flags.DEFINE_multi_enum(
  "only", None, list(CANDIDATES), "Changes to measure; all by default."
)
_TARGET = flags.DEFINE_string(
  "target", "", "A GPU to compile for, such as h200; '': that which is here."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
define_config("experiments/pancreas.py:phantom")

_USUAL = next(iter(CANDIDATES))


def main() -> None:
  """Compiles, measures where there is a device, prints and writes."""
  config = CONFIG_FLAGS.read()
  module = build_run_network(config, len(class_names(config.data.labels)) + 1)
  names = [_USUAL, *(name for name in _ONLY.value or CANDIDATES if name != _USUAL)]
  result: dict[str, Any] = {"machine": machine(), "environment": describe_environment()}
  if _TARGET.value:
    result |= {"target": _TARGET.value, "steps": _plan_steps(config, module, names)}
  else:
    with tempfile.TemporaryDirectory() as folder:
      config = replace_keys(config, {"data.prepared": folder})
      result |= {"pairs": _PAIRS.value, "steps": _time_steps(config, module, names)}
  keep(result, _OUTPUT.value)


def _plan_steps(config: RunConfig, module: nn.Module, names: list[str]) -> dict[str, Any]:
  """Compiles each step for the target."""
  there = topology.describe_devices(_TARGET.value or "")
  data = topology.describe_training_set(config, module, config.data.patch, scans=1)
  found = {}
  for name in names:
    with put_in_place(name):
      compiled = topology.compile_for_devices(config, module, data, there)
    found[name] = describe_program(compiled)
    print_line(f"{name}: {found[name]}")
  return found


def _time_steps(config: RunConfig, module: nn.Module, names: list[str]) -> dict[str, Any]:
  """Compiles each step for the device that is here, and times them in turn."""
  fed = one_batch(config, module)
  steps, starts, found = {}, {}, {}
  for name in names:
    with put_in_place(name):
      starts[name] = replicate(config, create_state(config, module))
      step: Any = compile_step(config, module, streamed=True)
      steps[name] = step.lower(starts[name], fed).compile()
    found[name] = describe_program(steps[name])
  times: dict[str, list[float]] = {name: [] for name in names}
  for _ in range(_PAIRS.value):
    for name in names:  # a step consumes its state
      state = jax.block_until_ready(jax.tree.map(jnp.copy, starts[name]))
      times[name].append(seconds(steps[name], state, itertools.repeat(fed), 2, _STEPS.value))
  usual = np.array(times[_USUAL])
  for name in names:
    found[name] |= {
      "step_ms": [round(1e3 * float(x), 3) for x in np.quantile(times[name], [0.5, 0, 1])],
      **ratio(np.array(times[name]) / usual),
    }
    print_line(f"{name}: {found[name]}")
  return found


if __name__ == "__main__":
  process.run_command(main, CONFIG_FLAGS)
