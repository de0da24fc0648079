"""How long the collectives of a compiled step would take on a cluster: a model, not a measurement.

An all-reduce of S bytes over p devices, every link carrying B bytes a second each way, takes

    t(S, p) = 2 (p - 1) / p * S / B + 2 ceil(log2 p) L

The bytes are those of the ring (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69), which no
algorithm undercuts; the rounds, of latency L each, are those of recursive halving and doubling,
which sends no more (Thakur, Rabenseifner and Gropp 2005, Int. J. High Perform. Comput. Appl. 19).
A ring has 2 (p - 1) rounds instead. Over several nodes it is a reduce-scatter and an all-gather
within each, and between them an all-reduce of each device's part.
"""

import math
from typing import Any, NamedTuple

Program = dict[str, Any]


class Link(NamedTuple):
  """A device's way to others: bytes a second in one direction, and seconds per message."""

  rate: float
  latency: float


class System(NamedTuple):
  """A kind of cluster.

  Attributes:
    name: as in the page.
    peak: operations a second of one device in bfloat16, dense.
    node: devices that `near` joins.
    near: within a node.
    far: between nodes, per device.
    source: of the rates.
  """

  name: str
  peak: float
  node: int
  near: Link
  far: Link
  source: str


_V4, _V5P = Link(50e9, 2e-6), Link(100e9, 2e-6)
SYSTEMS = (
  System(
    "DGX A100: NVLink 3, HDR InfiniBand", 312e12, 8, Link(300e9, 3e-6), Link(25e9, 5e-6),
    "NVIDIA's A100 and DGX A100 data sheets: 600 GB/s both ways, one 200 Gb/s adapter a GPU",
  ),
  System(
    "DGX H100: NVLink 4, NDR InfiniBand", 989e12, 8, Link(450e9, 3e-6), Link(50e9, 5e-6),
    "NVIDIA's H100 and DGX H100 data sheets: 900 GB/s both ways, one 400 Gb/s adapter a GPU",
  ),
  System(
    "TPU v4: one ICI link", 275e12, 4096, _V4, _V4,
    "Google Cloud's TPU v4 page: 2400 Gb/s a chip over the six links of a 3-D torus",
  ),
  System(
    "TPU v5p: one ICI link", 459e12, 8960, _V5P, _V5P,
    "Google Cloud's TPU v5p page: 4800 Gb/s a chip over the six links of a 3-D torus",
  ),
)  # fmt: skip
# Of the peak: the paper's step on one H200, 2.18 Top in 18.3 ms (docs/reference/gpu.md).
UTILISATION = 0.12
BACKWARD = 2 / 3  # of the computation, behind which gradients can be summed up


def all_reduce(size: float, number: int, devices: int, link: Link) -> float:
  """Seconds of `number` all-reduces of `size` bytes altogether; see the module's text."""
  rounds = 2 * math.ceil(math.log2(devices)) * number
  return 2 * (devices - 1) / devices * size / link.rate + rounds * link.latency


def over_nodes(size: float, number: int, near: int, far: int, system: System) -> float:
  """The same over `near` devices in each of `far` nodes."""
  within = all_reduce(size, number, near, system.near)
  return within + all_reduce(size / near, number, far, system.far)


def predict(single: Program, program: Program, system: System, devices: int) -> dict[str, float]:
  """A step of the program with its axis `data` grown until there are `devices`.

  Args:
    single: the program for one device: what efficiency is relative to.
    program: the one that is grown.
    system: the cluster.
    devices: how many, a multiple of the program's `space`.

  Returns:
    Seconds of computation, of summing gradients and statistics and of exchanging halos, and the
    efficiency: patches a second and device against one device, gradients summed up `after` the
    backward pass or `during` it, and `local`: during it, with no statistics over `data`.
  """
  space = program["space"]
  data, near = devices // space, max(1, min(devices, system.node) // space)
  speed = system.peak * UTILISATION
  told = {
    "compute": program["operations"] / speed,
    "gradients": 0.0,
    "statistics": 0.0,
    "halo": 0.0,
  }
  of_patch = 0.0  # statistics that a patch's own devices sum up
  for x in program["collectives"]:
    if x["purpose"] == "halo":
      told["halo"] += x["bytes"] / system.near.rate + x["number"] * system.near.latency
    elif space > 1 and x["group"] == space:
      seconds = all_reduce(x["bytes"], x["number"], space, system.near)
      told[x["purpose"]] += seconds
      of_patch += seconds if x["purpose"] == "statistics" else 0
    else:
      told[x["purpose"]] += over_nodes(x["bytes"], x["number"], near, data // near, system)
  ideal = single["operations"] / speed / space
  exposed = max(0.0, told["gradients"] - BACKWARD * told["compute"])
  never = told["compute"] + told["halo"]
  told["after"] = ideal / (never + told["statistics"] + told["gradients"])
  told["during"] = ideal / (never + told["statistics"] + exposed)
  told["local"] = ideal / (never + of_patch + exposed)
  return told
