"""What the training step costs on many devices, from programs compiled on one: docs/scaling.md.

python -m benchmarks.scaling                  # compiles for 8 simulated CPU devices
python -m benchmarks.scaling --compile=false  # makes the page anew from the stored figures

Nothing is run: the text of each compiled program says what devices exchange, its analyses say how
much they compute and hold, and benchmarks/scaling_model.py makes a prediction from them.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import ConfigDict

from attn_unet_jax.data.resident import Resident
from attn_unet_jax.run import environment
from attn_unet_jax.training.parallel import compile_step
from attn_unet_jax.training.state import abstract, network
from benchmarks.collectives import Collective, collectives
from benchmarks.scaling_report import report
from experiments.pancreas import get_config

DEVICES = 8
MESHES = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (4, 2), (2, 4))
PATCH = (256, 160, 96)  # the paper's, longer along X so that eight devices can divide it
SCANS = 60  # of the training set that every device holds, each as large as the patch

_COMPILE = flags.DEFINE_bool("compile", True, "compile; else read the figures in --output")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/scaling.json", "figures")
_PAGE = flags.DEFINE_string("page", "docs/scaling.md", "page made of them")


def configured(data: int, space: int) -> ConfigDict:
  """The paper's config on a mesh, one patch a device of its axis `data`."""
  config = get_config()
  config.data.patch, config.train.batch_size = PATCH, data
  config.model.conv = "native"  # the form of GPU and TPU
  config.parallel.data, config.parallel.space = data, space
  return config


def dataset(patch: tuple[int, int, int], scans: int) -> Resident:
  """The shapes of a training set; it is never made."""

  def of(kind: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct((scans, *shape), kind)

  return Resident(
    image=of(jnp.int16, *patch),
    label=of(jnp.uint8, *patch),
    size=of(jnp.int32, 3),
    mean=of(jnp.float32),
    sd=of(jnp.float32),
    positions=of(jnp.int32, 1024, 3),
    count=of(jnp.int32),
  )


def figures(config: ConfigDict, scans: int = SCANS) -> dict[str, Any]:
  """What the step's compiled program tells, for one device of its mesh."""
  data, space = config.parallel.data, config.parallel.space
  module = network(config, 2)
  state = abstract(config, module)
  lowered: Any = compile_step(config, module).lower(state, dataset(config.data.patch, scans))  # type: ignore[attr-defined]
  # Less effort on machine code, which is never run.
  compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
  memory, text = compiled.memory_analysis(), compiled.as_text()
  return {
    "data": data,
    "space": space,
    "patches_per_device": config.train.batch_size / (data * space),
    "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    "operations": compiled.cost_analysis()["flops"],
    "argument_bytes": memory.argument_size_in_bytes,
    "temporary_bytes": memory.temp_size_in_bytes,
    "collectives": summary(collectives(text, data * space)),
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


def purpose(found: Collective) -> str:
  """`halo`; `gradients`, if a kernel's is in it; or `statistics`: sums over channels, losses."""
  if found.kind != "all-reduce":
    return "halo" if found.kind == "collective-permute" else "other"
  kernels = any(sum(n > 1 for n in shape) > 1 for _, shape in found.arrays)
  return "gradients" if kernels else "statistics"


def main(argv: list[str]) -> None:
  """Compile, write the figures, make the page."""
  del argv
  output = Path(_OUTPUT.value)
  if _COMPILE.value:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    programs = []
    for data, space in MESHES:
      programs.append(figures(configured(data, space)))
      print(json.dumps(programs[-1]), flush=True)
    told = {
      "environment": environment(),
      "patch": PATCH,
      "scans": SCANS,
      "programs": programs,
    }
    output.write_text(json.dumps(told, indent=1) + "\n")
  Path(_PAGE.value).write_text(report(json.loads(output.read_text())))


if __name__ == "__main__":
  app.run(main)
