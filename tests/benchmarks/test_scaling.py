"""The prediction of scaling, against arithmetic by hand; the page against its figures."""

import json

import pytest

from benchmarks.scaling_model import SYSTEMS, Link, System, all_reduce, over_nodes, predict
from benchmarks.scaling_report import PREDICTED, by_mesh, report
from tests.conftest import ROOT

# How many convolutions, channels, features, voxels of a pack, of which two take the 3 taps' place.
PACKED = (1, 1, 16, 8), (2, 16, 16, 4), (1, 48, 16, 2), (1, 16, 32, 2), (2, 32, 32, 2)
NEAR, FAR = Link(100.0, 0.5), Link(10.0, 2.0)
SYSTEM = System("toy", 1000.0, 4, NEAR, FAR, "")


def _program(data, space, operations, *collectives):
  keys = ("purpose", "group", "number", "bytes")
  told = [dict(zip(keys, values, strict=True)) for values in collectives]
  return {"data": data, "space": space, "operations": operations, "collectives": told}


def test_an_all_reduce_by_hand():
  """8 devices: 7/4 of the bytes, six rounds each."""
  assert all_reduce(1000, 3, 8, NEAR) == pytest.approx(7 / 4 * 1000 / 100 + 3 * 6 * 0.5)
  assert all_reduce(1000, 3, 1, NEAR) == 0


def test_over_nodes_each_device_sends_its_part():
  """4 devices in each of 2 nodes: 3/2 of 1000 bytes near, then all of 250 bytes far."""
  near, far = 3 / 2 * 1000 / 100 + 4 * 0.5, 250 / 10 + 2 * 2.0
  assert over_nodes(1000, 1, 4, 2, SYSTEM) == pytest.approx(near + far)


def test_data_parallel_efficiency_by_hand():
  single = _program(1, 1, 12_000.0)
  program = _program(8, 1, 12_000.0, ("gradients", 8, 1, 1000), ("statistics", 8, 2, 40))
  told = predict(single, program, SYSTEM, 8)
  gradients = over_nodes(1000, 1, 4, 2, SYSTEM)
  statistics = over_nodes(40, 2, 4, 2, SYSTEM)
  assert told["compute"] == pytest.approx(100)  # 12 % of the peak
  assert told["after"] == pytest.approx(100 / (100 + gradients + statistics))
  assert told["during"] == pytest.approx(100 / (100 + statistics))  # 46 s fit into 2/3 of 100 s
  assert told["local"] == 1


def test_divided_patches_by_hand():
  """Mesh 4 x 2 grown to 16 devices: pairs near, so each node holds 2 of 8 places along data."""
  single = _program(1, 1, 12_000.0)
  halo, inner = ("halo", 2, 3, 500), ("gradients", 2, 1, 1000)
  sums = ("statistics", 2, 1, 20), ("statistics", 4, 1, 20)
  program = _program(4, 2, 7_200.0, halo, inner, ("gradients", 4, 1, 1000), *sums)
  told = predict(single, program, SYSTEM, 16)
  assert told["halo"] == pytest.approx(500 / 100 + 3 * 0.5)
  gradients = all_reduce(1000, 1, 2, NEAR) + over_nodes(1000, 1, 2, 4, SYSTEM)
  assert told["gradients"] == pytest.approx(gradients)
  inner, outer = all_reduce(20, 1, 2, NEAR), over_nodes(20, 1, 2, 4, SYSTEM)
  never = 60 + told["halo"] + inner
  assert told["after"] == pytest.approx(50 / (never + outer + gradients))
  exposed = gradients - 60 * 2 / 3
  assert exposed > 0
  assert told["during"] == pytest.approx(50 / (never + outer + exposed))
  assert told["local"] == pytest.approx(50 / (never + exposed))


def test_the_page_is_made_of_the_stored_figures():
  told = json.loads((ROOT / "benchmarks/results/scaling.json").read_text())
  page = report(told)
  assert (ROOT / "docs/reference/scaling.md").read_text() == page
  tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
  assert len(tables) == 3 + len(SYSTEMS)
  assert all(len({line.count("|") for line in table}) == 1 for table in tables)
  for program in (p for target in told.values() for p in target["programs"]):
    sums = [x for x in program["collectives"] if x["purpose"] == "gradients"]
    # In float32 over the batch; the parts of a patch in the compute type, kernels still packed.
    divided = program["space"] > 1
    hand = (4 * (program["data"] > 1) + 2 * divided) * program["parameters"]
    hand += 2 * divided * sum(9 * n * (2 * p * p - 3) * c * d for n, c, d, p in PACKED)
    assert hand * 0.99 <= sum(x["bytes"] for x in sums) <= hand * 1.01
    assert {x["kind"] for x in program["collectives"]} <= {"all-reduce", "collective-permute"}


def test_efficiency_never_exceeds_one_nor_grows_with_devices():
  told = json.loads((ROOT / "benchmarks/results/scaling.json").read_text())
  programs = by_mesh(told[PREDICTED])
  for system in SYSTEMS:
    shares = [predict(programs[1, 1], programs[8, 1], system, n)["after"] for n in (8, 64, 1024)]
    assert 1 > shares[0] > shares[1] > shares[2] > 0
