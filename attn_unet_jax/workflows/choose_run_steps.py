"""Chooses the steps after a run's network on its validation cases, once for each checkpoint.

There it is also learnt how good a mask will be.
"""

import dataclasses
from pathlib import Path

from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.evaluation.choose_steps import MIN_CASES, choose_steps
from attn_unet_jax.evaluation.learn_quality import learn_quality
from attn_unet_jax.inference.postprocess import UNCHANGED
from attn_unet_jax.inference.quality import QualityModel, measure_features
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.quality_record import read_quality, write_quality
from attn_unet_jax.workflows.steps_record import read_record, write_record


def choose_run_steps(trained: LoadedRun, fold: DataFold, workdir: Path) -> LoadedRun:
  """Returns the run with the steps that are best on its validation cases, and records them.

  It has the estimate of quality too that was learnt there.

  There are none where the run's config wants none, or where there are too few validation cases.

  Raises:
    UserError: what was recorded before is damaged.
  """
  ids = fold.split.validation
  if trained.config.inference.postprocess == "none" or len(ids) < MIN_CASES:
    return trained
  record = read_record(workdir)
  # Of another checkpoint: a later one became the best, and the choice is made again.
  if record and record.checkpoint_step == trained.step:
    quality = read_quality(workdir, trained.classes, trained.step)
    return dataclasses.replace(trained, postprocessing=record.steps, quality=quality)
  print_line(f"choosing the steps after the network on {len(ids)} validation cases")
  features: list[list[dict[str, float]]] = []
  chosen = choose_steps(
    fold,
    ids,
    trained.system,
    trained.config,
    lambda found: features.append(measure_features(found)),
  )
  # Of a class that the data does not label there are no scores to learn from.
  labelled = fold.mapping.labelled_indices
  models = {
    name: learn_quality(features, chosen.scores, name, index)
    if name in labelled
    else QualityModel()
    for index, name in enumerate(trained.classes)
  }
  # First: where a kill comes between the two, both are made again.
  write_quality(workdir, models, trained.step)
  write_record(workdir, chosen, trained.step)
  if chosen.steps == UNCHANGED:
    print_line("chosen: none, as none is a real gain")
  else:
    scores = f"validation DSC {chosen.before:.3f} to {chosen.after:.3f}"
    print_line(f"chosen: {chosen.steps.describe()} ({scores})")
  return dataclasses.replace(trained, postprocessing=chosen.steps, quality=models)
