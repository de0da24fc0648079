"""Trains a network, then evaluates it on the fold's test cases.

  python -m attn_unet_jax.main --config=experiments/pancreas.py --workdir=runs/a

Every key of attn_unet_jax/config.py is a flag (--config.optimizer.learning_rate=3e-4). Started
again on the same workdir it goes on where it stopped; SIGTERM and SIGINT save and leave.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from attn_unet_jax import command, run
from attn_unet_jax.data.boxes import check_same, to_json
from attn_unet_jax.data.fold import open_fold
from attn_unet_jax.inference.scoring import evaluate_run, mean_dsc
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.inference.trained import open_run
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.logs import say
from attn_unet_jax.training.loop import train
from attn_unet_jax.training.optimizer import check_patterns
from attn_unet_jax.training.parallel import check_patch, devices
from attn_unet_jax.training.state import TrainState, abstract, network, window
from attn_unet_jax.transfer import starting_point

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")


def main() -> None:
  """The command."""
  config = command.checked_config()
  workdir = Path(_WORKDIR.value or "")
  listing = workdir / "folds.json"
  begun = run.begun(workdir)
  fold = open_fold(config, listing if begun else None)
  module = network(config, len(fold.mapping.classes) + 1)
  devices(config)  # refuses, as the next three, what does not fit before anything is written
  check_patch(config, module)
  check_patterns(config, abstract(config, module).params)
  origin = None if begun else starting_point(config, module)
  if begun and fold.boxes:
    check_same(Path(config.data.boxes), fold.boxes)
  goes_on = run.claim(workdir, config)
  if not goes_on:
    run.write_text(listing, fold.to_json())
    if fold.boxes:
      run.write_text(workdir / "boxes.json", to_json(fold.boxes))
  say(f"{'going on with' if goes_on else 'new run'} {workdir}: {fold.describe()}")
  validator = SlidingWindow(config, module, window(config))

  def validate(state: TrainState) -> float:
    return mean_dsc(fold, fold.split.validation, validator.use(state.variables), config)

  with run.recorded(workdir, origin.describe() if origin else None):
    with checkpoints(workdir / "checkpoints", config.train.keep) as store:
      if origin:
        say(f"from {origin}")
        store.save(origin.state(config, module))
      train(config, module, fold.load, validate, store, workdir)
    trained = open_run(workdir)
    say(f"testing the checkpoint of step {trained.step} on {len(fold.split.test)} cases")
    evaluate_run(trained, fold, workdir)
  say(f"the run: {workdir}/metrics.csv (a line per epoch), run.json, checkpoints/")


if __name__ == "__main__":
  command.run(main)
