"""Whether steps repeat their bits: of processes that are made up, and of the smallest network."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import repeats
from benchmarks.repeats import Repeat
from tests.configs import small_config
from tests.conftest import flags_of, run_command
from tests.line import Line


def test_ratios_are_of_processes_that_ran_in_turn():
  usual = [Repeat(1.0, "a"), Repeat(2.0, "b"), Repeat(4.0, "a")]
  found = repeats.cost(usual, [Repeat(1.5, "c"), Repeat(2.2, "c"), Repeat(8.0, "c")])
  assert (found["ratio"], found["ratio_min"], found["ratio_max"]) == (1.5, 1.1, 2.0)
  assert found["usual"]["same_parameters"] is False
  assert found["deterministic"]["same_parameters"] is True
  assert found["usual"]["median_step_s"] == 2.0
  alone = repeats.cost(usual[:1], usual[:1])
  assert alone["usual"]["same_parameters"] is None


def test_a_digest_sees_every_bit_type_and_shape():
  tree = {"a": jnp.zeros(4), "b": jnp.ones((2, 2))}
  others = [
    tree | {"a": jnp.zeros(4).at[3].set(-0.0)},
    tree | {"a": jnp.zeros(4, jnp.int32)},
    tree | {"a": jnp.zeros((2, 2))},
    {"a": tree["b"], "b": tree["a"]},
  ]
  assert repeats.digest(tree) == repeats.digest({k: np.array(v) for k, v in tree.items()})
  assert len({repeats.digest(x) for x in [tree, *others]}) == 5


@pytest.mark.slow
def test_every_step_is_taken_and_repeats(phantoms, tmp_path):
  """A step that is fed for another changes nothing: the parameters would stay as after one."""
  folders = {"data.dir": str(phantoms), "data.prepared": str(tmp_path / "prepared")}
  config = small_config(**folders)
  first, again, longer, one = (
    repeats.repeat(config, Line(), untimed, timed)
    for untimed, timed in ((1, 2), (2, 1), (1, 3), (0, 1))
  )
  assert first.step_s > 0
  assert first.digest == again.digest
  assert len({x.digest for x in (first, longer, one)}) == 3


@pytest.mark.slow
@pytest.mark.soak
def test_the_command_measures_in_processes_of_both_kinds(phantoms, tmp_path):
  config = small_config(**{"data.dir": str(phantoms)})
  output = tmp_path / "cost.json"
  flags = ["--config=tests/small.py", *flags_of(config), f"--output={output}"]
  flags += ["--processes=1", "--steps=2", "--untimed=1"]
  done = run_command("benchmarks.deterministic_cost", *flags, timeout=900)
  assert done.returncode == 0, done.stderr
  told = json.loads(output.read_text())
  assert told["usual"]["parameters"] == told["deterministic"]["parameters"]  # on a CPU
  assert len(told["usual"]["step_s"]) == 1
  assert told["environment"]["devices"] == ["cpu: cpu"]


@pytest.mark.slow
def test_determinism_that_is_asked_of_all_is_refused():
  env = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
  done = run_command("benchmarks.deterministic_cost", env=env)
  assert (done.returncode, "take that out" in done.stderr) == (2, True), done.stderr
