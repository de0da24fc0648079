r"""How long XLA takes to compile the training step, beside JAX, which traces and lowers it before.

  python -m benchmarks.compile_pace --output=benchmarks/results/compile_pace.json

`training/pace.py` announces a compilation by the ratio of the two: the median over systems that is
measured here. Each system's demo step is compiled from shapes alone. No program that was kept is
read. The first system is compiled once more, before: what JAX imports then is not measured.
"""

import statistics
import time
from typing import Any

import jax
from absl import app, flags

from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from attn_unet_jax.runtime.xla import keep_channels_last
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.training.topology import describe_training_set
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.recipes import SYSTEMS
from benchmarks.result import keep, machine

_SCANS, _SCAN = 48, (128, 112, 80)  # about those of the demo

_SYSTEMS = flags.DEFINE_list(
  "systems", [name for name in SYSTEMS if name != "hnn_stages"], "rows of benchmarks/recipes.py"
)
_REPEATS = flags.DEFINE_integer("repeats", 2, "times that each is compiled", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")


def measure(config: RunConfig) -> dict[str, float]:
  """Measures the seconds to trace and lower a config's step, and to compile it."""
  jax.clear_caches()
  module = build_run_network(config, 2)
  step: Any = compile_step(config, module)
  state = abstract_state(config, module)
  data = describe_training_set(config, module, _SCAN, _SCANS)
  began = time.perf_counter()
  lowered = step.lower(state, data)
  between = time.perf_counter()
  lowered.compile()
  ended = time.perf_counter()
  return {"lower_s": round(between - began, 2), "compile_s": round(ended - between, 2)}


def _configure(name: str) -> RunConfig:
  system = SYSTEMS[name]
  draft = load_experiment(f"experiments/{system.experiment}")
  changes = dict(flag.removeprefix("--config.").split("=", 1) for flag in system.flags)
  apply_overrides(draft, changes)
  return resolve_draft(draft, data=False)


def main(argv: list[str]) -> None:
  """Measures each system in turn, prints and writes."""
  del argv
  keep_channels_last()
  jax.config.update("jax_enable_compilation_cache", False)
  on = machine()
  configs = {name: _configure(name) for name in _SYSTEMS.value}
  measure(next(iter(configs.values())))  # what the first has to import
  rows: list[dict[str, Any]] = []
  for _ in range(_REPEATS.value):
    for name, config in configs.items():
      times = measure(config)
      ratio = round(times["compile_s"] / times["lower_s"], 2)
      rows.append({"system": name, **times, "ratio": ratio})
      print(rows[-1], flush=True)
  ratios = [row["ratio"] for row in rows]
  quartiles = statistics.quantiles(ratios) if len(ratios) > 1 else ratios
  keep(
    {
      "machine": on,
      "environment": describe_environment(),
      "steps": rows,
      "ratio": round(statistics.median(ratios), 2),
      "quartiles": [round(one, 2) for one in quartiles],
    },
    _OUTPUT.value,
  )


if __name__ == "__main__":
  enable_huge_pages()
  app.run(main)
