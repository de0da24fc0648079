r"""What the engines of `predict` change in the DSC: JAX, and OpenVINO in both of its precisions.

  python -m benchmarks.engine_scores --demo=runs/demo --slabs=data \
    --output=benchmarks/results/engine_scores.json

Every test case of the demo's run, and every test slab of the bundled network, is segmented by each
engine in turn. `dsc` is the mean of the cases; `voxels` counts, over all cases, where a mask is not
that of JAX; `dice_with_first` is how alike their foregrounds are. Nothing is chosen by it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from attn_unet_jax.cases.fold import DataFold, open_fold
from attn_unet_jax.cases.prepare import native_classes
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.inference.segment import segment_scan
from attn_unet_jax.runs.builtin import find_run
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.process import run_command
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.options import EngineOptions
from attn_unet_jax.workflows.use_engine import use_engine
from benchmarks.engine_tables import mean_dsc, write_table
from benchmarks.mask_agreement import compare_masks
from benchmarks.page import write_section
from benchmarks.result import keep, machine

ENGINES = {
  "JAX": EngineOptions("jax"),
  "OpenVINO": EngineOptions("openvino"),
  "OpenVINO, bfloat16": EngineOptions("openvino", "bfloat16"),
}

_DEMO = flags.DEFINE_string("demo", "runs/demo", "The demo's run; '': none.")
_SLABS = flags.DEFINE_string("slabs", "", "Folder of records of the slabs; '': none.")
_PAGE = flags.DEFINE_string("page", "", "Page to write the table into; '': none.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures set by set, and writes after each."""
  result: dict[str, Any] = {"machine": machine(), "sets": {}}
  for name, workdir, fold in _open_sets():
    result["sets"][name] = compare_engines(workdir, fold)
    keep(result, _OUTPUT.value)
  text = write_table(result["sets"])
  print(text)
  if _PAGE.value:
    write_section(Path(_PAGE.value), "engine scores", text)


def _open_sets() -> Iterator[tuple[str, Path, DataFold]]:
  """Yields what each set is called, the run that segments it, and its cases."""
  if _DEMO.value:
    workdir = Path(_DEMO.value)
    config = open_ensemble([workdir]).config
    yield "phantoms", workdir, open_fold(config.data, workdir / "folds.json")
  if _SLABS.value:
    draft = load_experiment("experiments/pancreas.py:slabs")
    config = replace_keys(resolve_draft(draft, data=False), {"data.dir": _SLABS.value})
    yield "slabs", find_run("builtin:pancreas"), open_fold(config.data)


def compare_engines(workdir: Path, fold: DataFold) -> dict[str, Any]:
  """Returns the figures of each engine that can compute the run; the others have their reason."""
  truth = {case: native_classes(fold.dataset.load(case), fold.mapping) for case in fold.split.test}
  masks, failed = dict[str, list[np.ndarray]](), dict[str, str]()
  for name, options in ENGINES.items():
    try:
      trained = use_engine(open_ensemble([workdir]), options)
    except UserError as error:
      failed[name] = str(error)
      continue
    print_line(f"{workdir.name}: {len(truth)} cases by {name}")
    masks[name] = [_segment(trained, fold, case) for case in truth]
  labels = [one.array for one in truth.values()]
  found: dict[str, Any] = {
    name: {**mean_dsc(some, labels), **compare_masks(some, masks["JAX"])}
    for name, some in masks.items()
  }
  return found | {name: {"error": reason} for name, reason in failed.items()}


def _segment(trained: LoadedRun, fold: DataFold, case: str) -> np.ndarray:
  """Returns a mask of the first class, bool: the one that all these sets label."""
  image = fold.dataset.load(case).image
  steps = trained.postprocessing
  found = segment_scan(image, trained.system, trained.config, name=case, postprocessing=steps)
  mask: np.ndarray = found.mask.array == 1
  return mask


if __name__ == "__main__":
  run_command(main)
