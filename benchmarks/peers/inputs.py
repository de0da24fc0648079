"""What whole programs are compared on: a scan, a run with drawn values, a folder of scans."""

import json
from pathlib import Path

import jax
import nibabel as nib
import numpy as np

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.run_folder import open_run_folder
from benchmarks.drawn_network import draw_values
from benchmarks.drawn_scan import draw_scan

EXPERIMENT = "experiments/pancreas.py"
_SIZE, _SPACING_MM, _RADIUS = (192, 192, 128), 2.0, 20


def write_scan(path: Path, slices: int) -> None:
  """Writes a drawn scan of 512 x 512 voxels as compressed NIfTI, unless it is there."""
  if not path.exists():
    scan = draw_scan(slices)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan.array, scan.affine), path)


def write_run(workdir: Path, window: str = "patch") -> None:
  """Writes a run of the paper's recipe with drawn values, unless it is there.

  Args:
    workdir: its folder.
    window: its `inference.window`.
  """
  if (workdir / "config.json").exists():
    return
  config = resolve_draft(load_experiment(EXPERIMENT), data=False)
  keys = {"model.dtype": "float32", "data.dataset": "phantom_ct/demo", "inference.window": window}
  config = replace_keys(config, keys)
  draw, like = np.random.default_rng(0), abstract_state(config, build_run_network(config, 2))

  def fill(one: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.numpy.asarray(draw_values(one.shape, draw), one.dtype)

  state = jax.tree.map(fill, like)
  open_run_folder(workdir, config)
  with open_checkpoints(workdir / "checkpoints", 1) as store:
    store.save(state.replace(step=jax.numpy.int32(1)), validation_dsc=0.5)


def write_training_scans(folder: Path, count: int) -> None:
  """Writes scans of 192 x 192 x 128 voxels of 2 mm with a ball each, unless they are there."""
  if (folder / "dataset.json").exists():
    return
  affine = np.diag([_SPACING_MM] * 3 + [1.0])
  places = np.meshgrid(*map(np.arange, _SIZE), indexing="ij", sparse=True)
  for number in range(count):
    draw = np.random.default_rng(number)
    centre = [draw.integers(_RADIUS, size - _RADIUS) for size in _SIZE]
    squares = [(place - middle) ** 2 for place, middle in zip(places, centre, strict=True)]
    ball = squares[0] + squares[1] + squares[2] < _RADIUS**2
    hu = (40 + 60 * ball + draw.integers(-60, 60, _SIZE)).astype(np.int16)
    for part, array in (("imagesTr", hu), ("labelsTr", ball.astype(np.uint8))):
      (folder / part).mkdir(parents=True, exist_ok=True)
      path = folder / part / f"scan{number}.nii.gz"
      nib.save(nib.Nifti1Image(array, affine), path)
  text = json.dumps({"labels": {"background": 0, "pancreas": 1}})
  (folder / "dataset.json").write_text(text, encoding="utf-8")
