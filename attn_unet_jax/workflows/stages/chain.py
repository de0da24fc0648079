"""Trains the networks of both stages on one split, each as an ordinary run in its own folder.

The first network is trained on bodies, those of the second stage on boxes. The box of a validation
or test case is the one that the first network finds, as at test time. The box of a training case is
the smallest one around such a box and its label, so that no label is cut.
"""

import dataclasses
from pathlib import Path
from typing import Any

from attn_unet_jax.cases import boxes as box_files
from attn_unet_jax.cases.boxes import Boxes
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.folds import PARTS
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.stages.cases import label_box, make_volume, replace_split, whole_cases
from attn_unet_jax.stages.options import StageOptions
from attn_unet_jax.stages.system import locate_organ
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.workflows.load_run import open_run
from attn_unet_jax.workflows.train import train_and_test

# Each is the folder of an ordinary run, which `evaluate`, `compare` and TensorBoard can read.
FIRST, INTERIOR, BOUNDARY = "stage1", "stage2_interior", "stage2_boundary"


def train_chain(
  config: RunConfig, workdir: Path, fold: DataFold, bodies: Boxes, held_out: Boxes | None = None
) -> None:
  """Trains the networks that are not trained yet, and writes `boxes.json`, the boxes of all cases.

  Args:
    config: the config of the whole system.
    workdir: the folder for the three runs.
    fold: the split to train on.
    bodies: the boxes around the patients of all cases.
    held_out: boxes of the training cases by first stages that did not see them; None: this first
      stage finds them, although it was trained on these cases.
  """
  written = workdir / "boxes.json"
  # The file is written once the first stage is trained: it marks that stage as finished.
  if not written.exists():
    first = first_config(config)
    # Untested: only the whole system has an answer that can be scored.
    train_and_test(
      first, replace_split(first.data, fold, fold.split, bodies), workdir / FIRST, test=False
    )
    write_text(written, box_files.to_json(_find_boxes(config, workdir, fold, held_out or {})))
  found = box_files.read_boxes(written)
  for name, target in ((INTERIOR, "interior"), (BOUNDARY, "boundary")):
    second = second_config(config, target)
    train_and_test(
      second, replace_split(second.data, fold, fold.split, found), workdir / name, test=False
    )


def first_config(config: RunConfig) -> RunConfig:
  """Returns the config of the first network: an ordinary run, inside boxes of its own."""
  # The chain passes on its own split and boxes: the configured folds do not apply.
  data = dataclasses.replace(config.data, boxes="boxes.json", folds="", fold=0)
  return dataclasses.replace(config, stages=StageOptions(), data=data)


def second_config(config: RunConfig, target: str = "interior") -> RunConfig:
  """Returns the config of the network of the interior or of the boundary."""
  changes: dict[str, Any] = {"data.target": target}
  if target == "boundary":
    # A layer of one voxel falls into many pieces, all of which count.
    changes["inference.largest_component"] = False
  if foreground := config.stages.foreground[target == "boundary"]:
    changes["loss_options.foreground"] = foreground
  if any(config.stages.patch):
    changes["data.patch"] = config.stages.patch
  return replace_keys(first_config(config), changes)


def _find_boxes(
  config: RunConfig, workdir: Path, fold: DataFold, held_out: Boxes
) -> dict[str, Box]:
  """Finds the boxes of all cases; those of training cases also contain the label."""
  print_line(f"{workdir}: the boxes of the second stage")
  trained = open_run(workdir / FIRST)
  # Each once: a list of folds may have a case in several parts.
  ids = sorted({case for part in PARTS for case in getattr(fold.split, part)})
  boxes = {}
  for case in whole_cases(trained.config.data, fold, ids):
    # A network finds the organ better in cases that it was trained on, and such boxes would be too
    # good an example.
    box = held_out.get(case.id) or locate_organ(
      make_volume(case, trained.config.data),
      trained.system,
      trained.config,
      config.stages.box_margin_mm,
    )
    if case.id in fold.split.training:
      box = box.union_with(label_box(case, trained.config.data))
    boxes[case.id] = box
  return boxes
