"""Trains all stages in order, and resumes where an earlier start stopped.

Inner folds come first: networks trained on the other training cases predict the held-out ones, so
that the forest learns from predictions like those of unseen scans. Then the final networks are
trained on all training cases, with the boxes that the inner folds found in them when held out.

  inner.json           the training cases that each inner fold holds out
  body.json            boxes around the patients
  innerK/              a chain (see `chain.py`) and table.npz, the superpixels of its held-out cases
  forest.npz           the forest, learnt from all tables
  stage1/ boxes.json stage2_interior/ stage2_boundary/      the final chain
"""

import dataclasses
from pathlib import Path

import jax

from attn_unet_jax.cases import boxes as box_files
from attn_unet_jax.cases.boxes import Boxes, box_voxels
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.folds import PARTS, CaseSplit
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.stages import table
from attn_unet_jax.stages.body import body_box
from attn_unet_jax.stages.cases import make_volume, whole_cases
from attn_unet_jax.stages.optional import require_extra
from attn_unet_jax.stages.system import measure_superpixels
from attn_unet_jax.volumes.box import crop_volume
from attn_unet_jax.workflows.evaluate_run import evaluate_run
from attn_unet_jax.workflows.load_run import open_run
from attn_unet_jax.workflows.open_run import open_run_or_stages
from attn_unet_jax.workflows.run_data import open_run_data
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.stages.chain import BOUNDARY, INTERIOR, second_config, train_chain
from attn_unet_jax.workflows.stages.inner_folds import recall_groups, split_groups, write_groups
from attn_unet_jax.workflows.train import describe_accepted


def train_stages(config: RunConfig, workdir: Path, listing: Path | None = None) -> None:
  """Trains the whole system and tests it.

  Args:
    config: the config of the whole system.
    workdir: its folder.
    listing: as of `open_run_data`.

  Raises:
    UserError: the data does not fit, a package of the extra `hnn` is not installed, or there are
      several hosts.
  """
  if jax.process_count() > 1:
    raise UserError("config.stages.count=2: stages train on one host; start on one host only")
  (
    require_extra("skimage.segmentation"),
    require_extra("sklearn.ensemble"),
  )  # now, rather than after days of training
  data = open_run_data(config, workdir, listing)
  config, fold = data.config, data.fold
  groups = recall_groups(workdir, fold, config.stages.inner_folds)
  splits = split_groups(fold.split, groups, workdir)
  open_run_folder(workdir, config)
  write_groups(workdir, groups)
  data.write(workdir)
  with run_folder.record_run(workdir, None, data.accepted, describe_accepted(config, fold)):
    bodies = _find_bodies(config, workdir, fold)
    inner = [workdir / f"inner{k}" for k in range(len(splits))]
    for folder, split in zip(inner, splits, strict=True):
      _inner_fold(config, folder, fold, split, bodies)
    _grow_forest(config, workdir, inner)
    train_chain(config, workdir, fold, bodies, _out_of_fold(inner, splits))
    trained = open_run_or_stages(workdir)
    print_line(f"testing all stages on {len(fold.split.test)} cases")
    evaluate_run(trained, fold, workdir)
  print_line(f"the run: {workdir}/run.json, a run in each of its folders stage* and inner*/stage*")


def _find_bodies(config: RunConfig, workdir: Path, fold: DataFold) -> Boxes:
  # This file also marks a run of stages as begun; see `has_progress`.
  written = workdir / run_folder.STAGES_MARKER
  if not written.exists():
    print_line(f"{workdir}: boxes around the bodies")
    # Each once: a list of folds may have a case in several parts.
    ids = sorted({case for part in PARTS for case in getattr(fold.split, part)})
    cases = whole_cases(config.data, fold, ids)
    found = {case.id: body_box(make_volume(case, config.data)) for case in cases}
    write_text(written, box_files.to_json(found))
  return box_files.read_boxes(written)


def _inner_fold(
  config: RunConfig, folder: Path, fold: DataFold, split: CaseSplit, bodies: Boxes
) -> None:
  """Trains the networks of an inner fold and writes the superpixels of its held-out cases."""
  # The last file of an inner fold: once it exists, the networks are not needed again.
  written = folder / "table.npz"
  if written.exists():
    return
  folder.mkdir(exist_ok=True)
  train_chain(config, folder, dataclasses.replace(fold, split=split), bodies)
  print_line(f"{folder}: superpixels of {len(split.test)} held-out cases")
  boxes, second = box_files.read_boxes(folder / "boxes.json"), second_config(config)
  interior, boundary = (open_run(folder / name).system for name in (INTERIOR, BOUNDARY))
  rows = []
  for case in whole_cases(second.data, fold, split.test):
    image = make_volume(case, second.data)
    # In the box of the inner first stage, as at test time.
    where = box_voxels(boxes[case.id], image.grid, second.data.patch, case.id)
    segments, features = measure_superpixels(crop_volume(image, where), interior, boundary, config)
    # Of the whole case, as foreground outside the box counts as missed.
    total = int((case.label == 1).sum())
    rows.append(table.rows_of(case.id, features, segments, case.label[where], total))
  table.join_tables(rows).save(written)


def _grow_forest(config: RunConfig, workdir: Path, inner: list[Path]) -> None:
  written = workdir / "forest.npz"
  # A file that exists is complete, since it is written atomically.
  if not written.exists():
    forest = table.learn_forest(
      [table.load_table(folder / "table.npz") for folder in inner], config.seed
    )
    print_line(f"{written}: superpixels are foreground above {forest.threshold:.2f}")
    forest.save(written)


def _out_of_fold(inner: list[Path], splits: list[CaseSplit]) -> Boxes:
  """Returns the box of every training case by the inner first stage that did not see it."""
  found = [box_files.read_boxes(folder / "boxes.json") for folder in inner]
  return {
    case: boxes[case] for boxes, split in zip(found, splits, strict=True) for case in split.test
  }
