"""A training run that starts in seconds: for tests that kill it, fill its disk, or divide it.

  python -m tests.tiny_run --config=tests/small.py --workdir=WORKDIR --config.data.dir=DIR ...

The network is the smallest there is, and every validation scores 0.5; all else is as in the
command. With --full_at=N no file can grow beyond 2000 bytes from the save at step N on; with
--network the config's network is trained, all in float64 where that is enabled; with --stop_at=N a
signal comes in the validation at step N, with --stop_in_save=N in the save at it; with --reads=FILE
the ids of the training cases that this process read are written there; --unreadable=ID is a case
that it cannot read; with --other_start this process draws other parameters than those of the seed;
with --slow_steps=FILE the number of each step (from 1) is written there as it begins, and it lasts
20 ms longer; with --kept=PART each step leaves out others of the voxels, by a random stream;
--grace=SECONDS is the time in which this process must leave when another has left.
"""

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import hosts, process
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import loop, state
from attn_unet_jax.training.checkpoint import CheckpointStore, open_checkpoints
from attn_unet_jax.training.compile import Step, compile_step
from attn_unet_jax.training.epoch_end import ValidationScore
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.run_folder import open_run_folder
from tests import wide
from tests.line import Line

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_FULL_AT = flags.DEFINE_integer("full_at", -1, "Step from which the disk is full.")
_STOP_AT = flags.DEFINE_integer("stop_at", -1, "Step whose validation a signal ends.")
_STOP_IN_SAVE = flags.DEFINE_integer("stop_in_save", -1, "Step in whose save a signal comes.")
_OTHER_START = flags.DEFINE_bool("other_start", False, "Whether other parameters are drawn here.")
_NETWORK = flags.DEFINE_bool("network", False, "Whether the config's network is trained.")
_KEPT = flags.DEFINE_float("kept", 1.0, "Part of the voxels that a step keeps.")
_GRACE = flags.DEFINE_float("grace", hosts._GRACE_S, "Seconds to leave in.")
_READS = flags.DEFINE_string("reads", None, "File for the ids of the cases that were read.")
_SLOW_STEPS = flags.DEFINE_string("slow_steps", None, "File for the number of the step begun.")
_UNREADABLE = flags.DEFINE_string("unreadable", None, "A case that cannot be read.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "As in the command.")
_PROCESSES = flags.DEFINE_integer("processes", None, "As in the command.")
_PROCESS = flags.DEFINE_integer("process", None, "As in the command.")
define_config()


def main() -> None:
  config, workdir = CONFIG_FLAGS.read(), Path(_WORKDIR.value)
  dtype, read = jnp.result_type(float), []
  module = Line(batch_norm=True, kept=_KEPT.value, dtype=dtype)
  if _NETWORK.value:
    module = build_run_network(config, 2).clone(dtype=dtype)  # no config can ask for float64
    if dtype == jnp.float64:
      state.make_initial_state = wide.start

  hosts._GRACE_S = _GRACE.value
  if _OTHER_START.value:
    state.make_initial_state = _other_start

  if _SLOW_STEPS.value:
    loop.compile_step = _slow

  def load(part: str) -> WorkingCases:
    return Noted(**vars(fold.load(part))) if part == "training" else fold.load(part)

  class Noted(WorkingCases):
    def __getitem__(self, index):
      if self.ids[index] == _UNREADABLE.value:
        raise UserError(f"{self.ids[index]}: cannot be read")
      read.append(self.ids[index])
      return super().__getitem__(index)

  with hosts.join_hosts(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value):
    fold = open_fold(config.data)
    hosts.run_on_primary(open_run_folder, workdir, config)
    with (
      hosts.open_on_primary(run_folder.record_run, workdir),
      open_checkpoints(workdir / "checkpoints", config.train.keep) as store,
    ):
      _disturb_saves(store)
      loop.train_network(config, module, load, _validate, store, workdir)
  if _READS.value:
    Path(_READS.value).write_text(json.dumps(sorted(set(read))))


def _other_start(recipe: TrainingRecipe, variables: Any) -> TrainState:
  return wide.real(recipe, jax.tree.map(lambda x: x + 0.1, variables))


def _slow(*arguments: Any, **keywords: Any) -> Step:
  step = compile_step(*arguments, **keywords)

  def slow(reached: TrainState, feed: Any) -> Any:
    Path(_SLOW_STEPS.value).write_text(str(1 + int(jax.device_get(reached.step))))
    time.sleep(0.02)
    return step(reached, feed)

  return slow


def _validate(reached: TrainState) -> ValidationScore:
  if int(reached.step) == _STOP_AT.value:
    os.kill(os.getpid(), signal.SIGTERM)
  return ValidationScore(0.5, 1, 1)


def _disturb_saves(store: CheckpointStore) -> None:
  save = store.save

  def disturbed(reached: TrainState, *score: float) -> None:
    if int(reached.step) == _FULL_AT.value:
      resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    if int(reached.step) == _STOP_IN_SAVE.value:
      os.kill(os.getpid(), signal.SIGTERM)
    save(reached, *score)

  store.save = disturbed


if __name__ == "__main__":
  process.run_command(main, CONFIG_FLAGS)
