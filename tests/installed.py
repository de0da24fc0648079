"""Uses the installed package as a user does who has no clone: `make test-install`.

  python -I tests/installed.py

Run by the Python of an environment in which only `pip install .` was done. Works in a folder of
its own: the demo with a tiny network on a coarse grid, then a training folder of its scans: check,
train, predict, evaluate, info.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

import attn_unet_jax
from attn_unet_jax.cases.dataset import open_dataset
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.volumes.nifti import write_nifti

COMMAND = Path(sys.executable).with_name("attn-unet-jax")
FEW_STEPS = ("--config.train.epochs=1", "--config.train.steps_per_epoch=2")
TINY = (
  "--config.model.feature_scale=32",
  "--config.data.spacing_mm=10",
  "--config.data.patch=(16,16,16)",
)
LABELS = "--config.data.labels=pancreas=10,background=*"


def run(*arguments: str) -> str:
  """Runs `attn-unet-jax` with arguments; returns what it printed."""
  print("attn-unet-jax", *arguments, flush=True)
  done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=1200)
  assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
  return done.stdout


def write_training_folder(folder: Path) -> list[str]:
  """Writes three of the demo's scans as imagesTr and labelsTr; returns their names."""
  scans = open_dataset(DataOptions(dataset="phantom_ct/demo", dir="data"))
  names = list(scans.ids[:3])
  for name in names:
    case = scans.load(name)
    for part, volume in (("imagesTr", case.image), ("labelsTr", case.label)):
      (folder / part).mkdir(parents=True, exist_ok=True)
      write_nifti(folder / part / f"{name}.nii.gz", volume)
  parts = {"training": names[:1], "validation": names[1:2], "test": names[2:]}
  Path("folds.json").write_text(json.dumps({"folds": [parts]}))
  return names


def main() -> None:
  """Does it all; an AssertionError says what went wrong."""
  here = Path(attn_unet_jax.__file__)
  assert "site-packages" in here.parts, f"{here} is not an installed package"
  assert run("--version").strip() == attn_unet_jax.__version__
  run("demo", *FEW_STEPS, *TINY)
  assert Path("runs/demo/evaluation/summary.json").is_file()
  assert "viewer" in Path("runs/demo/report.html").read_text()

  names = write_training_folder(Path("DATA"))
  run("check", "--input=DATA", LABELS, "--output=checked")
  data = ("--config.data.dataset=", "--config.data.folder=DATA", "--config.data.folds=folds.json")
  run("train", "--config=pancreas:phantom", *data, LABELS, *FEW_STEPS, "--workdir=runs/own")
  scan = Path(f"DATA/imagesTr/{names[2]}.nii.gz")
  answer = (f"--input={scan}", f"--output=masks/{scan.name}", "--preview")
  run("predict", "--workdir=runs/own", *answer)
  assert Path(f"masks/{names[2]}.png").is_file()
  image, mask = nib.load(scan), nib.load(f"masks/{scan.name}")
  assert image.shape == mask.shape
  assert np.array_equal(image.affine, mask.affine)
  said = run("predict", f"--input={scan}", "--output=shipped/mask.nii.gz", "--json")
  assert said.startswith("builtin:pancreas: "), said
  assert "not a medical device" in said
  classes = json.loads(Path("shipped/mask.json").read_text())["classes"]
  assert [one["name"] for one in classes][:2] == ["pancreas", "liver"]
  Path("reference").mkdir()
  Path("reference", scan.name).symlink_to(Path("runs/own/predictions", scan.name).resolve())
  run("evaluate", "--prediction=masks", "--reference=reference", "--output=scores")
  scores = json.loads(Path("scores/summary.json").read_text())
  assert scores["cases"] == 1
  needs = json.loads(run("info", "--config=pancreas"))
  assert needs["parameters"] > 1_000_000
  print("all commands work from an installed package")


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as workplace:
    os.chdir(workplace)
    main()
