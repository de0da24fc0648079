"""The page docs/reference/scaling.md, made of the figures of benchmarks/scaling.py."""

from collections.abc import Iterable
from typing import Any

from benchmarks.scaling_model import BACKWARD, SYSTEMS, UTILISATION, System, predict

PREDICTED = "h100:8"  # whose programs stand for every system's
SIZES = (8, 64, 256, 1024)

_TOP = """# Scaling: a prediction

`python -m benchmarks.scaling` made this page. The figures are in `benchmarks/results/scaling.json`.
What devices exchange and hold was read from the step as XLA compiles it for eight H100, and for one
TPU v5p. **Times and efficiencies are predicted from that, from data sheets, and from what one H200
was measured to reach. Nothing here ran on several GPUs, a TPU or a cluster.**

The step is that of Attention U-Net in `experiments/pancreas.py`: {parameters:,} parameters,
bfloat16, patches of {patch}, one patch for each place along the mesh's axis `data`, and {scans}
scans of that size on every device. It was compiled by jax {jax}. Gop counts the operations of
convolutions and matrix products. To see what a config of your own holds in memory, use
`python -m attn_unet_jax.info --config=... --target=h100`.
"""

_PREDICTION = """## Predicted efficiency

Efficiency is patches per second and device, compared with one device that has a patch for itself.
Scaling over `data` is weak: each further device (or group of `space` devices) brings a patch of its
own.

Assumptions:

- An all-reduce of S bytes over p devices takes `2 (p - 1) / p * S / B + 2 ceil(log2 p) L`: the
  bytes of a ring (Patarasuk and Yuan 2009) and the rounds of recursive halving and doubling
  (Thakur, Rabenseifner and Gropp 2005). Over several nodes it is a reduce-scatter within each node,
  an all-reduce of the parts between nodes, and an all-gather within.
- Devices reach {utilisation:.0%} of their peak, as [one H200 does](gpu.md) with a whole patch. No
  other device was measured, in particular no TPU, nor a part of a patch. At a lower share of the
  peak, exchange weighs less and all these efficiencies rise; at a higher share they fall.
- Halos and batch-norm statistics are exchanged one after the other while all devices wait. `space`
  lies within a node.
- Gradients are summed after the backward pass (`after`), or during it, which is the last
  {backward:.0%} of the computation (`during`). `local` is `during` with
  `--config.parallel.batch_norm=local`, so without statistics over `data`; the few sums of the loss
  are neglected there.
- There is no contention, no straggler and no input: patches are cropped on the devices.

"""


def report(told: dict[str, Any]) -> str:
  """The page, Markdown."""
  targets = {name: by_mesh(target) for name, target in told.items()}
  made = told[PREDICTED]
  single = targets[PREDICTED][1, 1]
  patch = "x".join(map(str, made["patch"]))
  jax = made["environment"]["versions"]["jax"]
  parts = [
    _TOP.format(patch=patch, scans=made["scans"], jax=jax, parameters=single["parameters"]),
    "## What the programs say, per device\n",
    *(f"### {told[name]['device']}\n\n{_programs(programs)}" for name, programs in targets.items()),
    _remarks(targets[PREDICTED][8, 1]),
    _PREDICTION.format(utilisation=UTILISATION, backward=BACKWARD) + _systems(),
    *(_format_prediction(targets[PREDICTED], system) for system in SYSTEMS),
  ]
  return "\n".join(parts)


def by_mesh(target: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
  """A target's programs by their mesh, data x space."""
  return {(p["data"], p["space"]): p for p in target["programs"]}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
  head = list(head)
  lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bytes(program: dict[str, Any], purpose: str) -> str:
  chosen = [x for x in program["collectives"] if x["purpose"] == purpose]
  if not chosen:
    return "-"
  size, number = sum(x["bytes"] for x in chosen), sum(x["number"] for x in chosen)
  return f"{size / 1e6:.2f} MB in {number}"


def _programs(programs: dict[tuple[int, int], dict[str, Any]]) -> str:
  head = ("mesh data x space", "Gop", "estimate", "state and scans", "temporary", "gradients")
  rows = []
  for (data, space), p in programs.items():
    memory = [f"{p[key] / 2**30:.2f} GiB" for key in ("argument_bytes", "temporary_bytes")]
    sums = [_bytes(p, purpose) for purpose in ("gradients", "statistics", "halo", "other")]
    estimate = f"{p['estimated_s'] * 1e3:.0f} ms" if p["estimated_s"] else "-"
    rows.append((f"{data} x {space}", f"{p['operations'] / 1e9:.0f}", estimate, *memory, *sums))
  return _table((*head, "statistics", "halos", "other"), rows)


def _remarks(wide: dict[str, Any]) -> str:
  sums = sum(x["bytes"] for x in wide["collectives"] if x["purpose"] == "gradients")
  ratio = sums / (4 * wide["parameters"])
  return (
    "Exchanges are given as bytes of the results and number of operations. Counted by hand, the\n"
    "gradients are 4 bytes per parameter over `data`, where they are averaged in float32, and 2\n"
    "over `space`, whose devices share a patch (those of kernels before they are unpacked). The\n"
    f"all-reduces over `data` that hold those of kernels are {ratio:.4f} times that. Temporary\n"
    "memory excludes the workspaces of cuDNN, which are measured on the GPU itself. `estimate` is\n"
    "the time of a step in XLA's own model of a TPU; it has none of a GPU. A TPU computes on 128\n"
    "channels at a time and pads the 16 of the finest level to them. That is why its memory and\n"
    "its estimate are so large.\n"
  )


def _systems() -> str:
  rows = [
    (
      s.name,
      f"{s.peak / 1e12:.0f}",
      f"{s.near.rate / 1e9:.0f}, {s.near.latency * 1e6:.0f}",
      f"{s.far.rate / 1e9:.0f}, {s.far.latency * 1e6:.0f}",
      s.source,
    )
    for s in SYSTEMS
  ]
  head = (
    "system",
    "peak, Top/s",
    "near: GB/s one way, us",
    "far: GB/s one way, us",
    "source",
  )
  return _table(head, rows) + "\nThe latencies are assumptions.\n"


def _format_prediction(programs: dict[tuple[int, int], dict[str, Any]], system: System) -> str:
  grown = [programs[8, 1], programs[4, 2], programs[2, 4]]
  rows = []
  for program in grown:
    for devices in SIZES:
      told = predict(programs[1, 1], program, system, devices)
      times = [f"{told[key] * 1e3:.2f}" for key in ("compute", "gradients", "statistics", "halo")]
      shares = [f"{told[key]:.1%}" for key in ("after", "during", "local")]
      mesh = f"{devices // program['space']} x {program['space']}"
      rows.append((mesh, *times, *shares))
  head = ("mesh", "compute, ms", "gradients", "statistics", "halos", "after", "during", "local")
  return f"### {system.name}\n\n" + _table(head, rows)
