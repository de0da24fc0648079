"""Writes docs/reference/scaling.md: the training step on many devices, from compiled programs.

python -m benchmarks.scaling                  # compiles for GPUs and TPUs; needs '.[cuda,tpu]'
python -m benchmarks.scaling --compile=false  # makes the page anew from the stored figures

No such device is needed and nothing is run: the text of each compiled program says what devices
exchange, its analysis what they hold, and benchmarks/scaling_model.py makes a prediction of it.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from attn_unet_jax.runtime.xla import keep_channels_last
from attn_unet_jax.training import topology
from attn_unet_jax.training.cost import forward_cost
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.collectives import Collective, collectives, purpose
from benchmarks.scaling_report import report
from experiments.pancreas import get_config

TARGETS = {
  "h100:8": ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (4, 2), (2, 4)),
  "v5p:2x2x2": ((1, 1),),  # for its memory and estimate; each more takes a quarter of an hour
}
PATCH = (256, 160, 96)  # the paper's, longer along X so that eight devices can divide it
SCANS = 60  # of the training set that every device holds, each as large as the patch

_COMPILE = flags.DEFINE_bool("compile", True, "compile; else read the figures in --output")
_TARGETS = flags.DEFINE_multi_enum(
  "targets", list(TARGETS), list(TARGETS), "compile for these; keep the figures of others"
)
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/scaling.json", "figures")
_PAGE = flags.DEFINE_string("page", "docs/reference/scaling.md", "page made of them")


def make_config(data: int, space: int) -> RunConfig:
  """The paper's config on a mesh, one patch a device of its axis `data`, in bfloat16."""
  draft = get_config()
  draft.data.patch, draft.train.batch_size = PATCH, data
  draft.model.dtype = "bfloat16"
  draft.parallel.data, draft.parallel.space = data, space
  return resolve_draft(draft, data=False)


def figures(config: RunConfig, there: Sequence[jax.Device], scans: int = SCANS) -> dict[str, Any]:
  """What the step's compiled program tells, for one device of its mesh."""
  data, space = config.parallel.data, config.parallel.space
  module = build_run_network(config, 2)
  began = time.monotonic()
  held = topology.describe_training_set(config, module, config.data.patch, scans)
  compiled = topology.compile_for_devices(config, module, held, there)
  memory: Any = compiled.memory_analysis()
  state = abstract_state(config, module)
  direct = module.clone(conv="native")  # each product is counted once
  forward, _ = forward_cost(direct, state, (config.train.batch_size, *config.data.patch, 1))
  return {
    "data": data,
    "space": space,
    "patches_per_device": config.train.batch_size / (data * space),
    "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    "operations": 3 * forward / (data * space),
    "estimated_s": (compiled.cost_analysis() or {}).get("optimal_seconds"),
    "argument_bytes": memory.argument_size_in_bytes,
    "temporary_bytes": memory.temp_size_in_bytes,
    "collectives": summary(collectives(compiled.as_text() or "", data * space)),
    "compile_s": time.monotonic() - began,
  }


def summary(found: list[Collective]) -> list[dict[str, Any]]:
  """Collectives of one kind, purpose and group size together: their number and bytes."""
  number: Counter[tuple[str, str, int]] = Counter()
  size: Counter[tuple[str, str, int]] = Counter()
  for x in found:
    key = (x.kind, purpose(x), x.group)
    number[key] += 1
    size[key] += x.bytes
  return [
    {"kind": key[0], "purpose": key[1], "group": key[2], "number": n, "bytes": size[key]}
    for key, n in sorted(number.items())
  ]


def main(argv: list[str]) -> None:
  """Compile, write the figures, make the page."""
  del argv
  output = Path(_OUTPUT.value)
  if _COMPILE.value:
    keep_channels_last()
    jax.config.update("jax_platforms", "cpu")
    told = json.loads(output.read_text()) if output.exists() else {}
    for name in _TARGETS.value:
      there, programs = topology.describe_devices(name), []
      for data, space in TARGETS[name]:
        programs.append(figures(make_config(data, space), there))
        print(json.dumps(programs[-1]), flush=True)
      told[name] = {
        "device": there[0].device_kind,
        "environment": describe_environment(),
        "patch": PATCH,
        "scans": SCANS,
        "programs": programs,
      }
    output.write_text(json.dumps(told, indent=1) + "\n")
  Path(_PAGE.value).write_text(report(json.loads(output.read_text())))


if __name__ == "__main__":
  enable_huge_pages()  # as the commands of the program do
  app.run(main)
