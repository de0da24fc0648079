"""Does a run segment a scan alike however its file stores it? Writes and reads real files.

  python -m benchmarks.orientations --workdir=RUN --input=ct.nii.gz --label=pancreas.nii.gz

The scan is saved again on LPS axes, with its axes permuted, and with its affine turned by 12
degrees; each file is segmented by `predict`, and each mask, read back and turned to canonical
axes, must equal that of the original voxel for voxel, on its own file's affine. Last, the scan is
truly resampled onto a grid turned by 12 degrees, where only a Dice can be reported. Ends with
status 1 if a mask differs.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from attn_unet_jax.evaluation.overlap import count_voxels, dice_score
from attn_unet_jax.volumes.nifti import read_label, read_nifti, write_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from benchmarks.result import keep

_DEGREES = 12.0


def main() -> None:
  """Segments every variant and compares."""
  arguments = _arguments()
  scan, label = read_nifti(arguments.input), read_label(arguments.label)
  resampled, truth = _onto_turned_grid(scan, 1), _onto_turned_grid(label, 0)
  variants = {"original": scan, "LPS": on_axes(scan, "LPS"), "permuted": on_axes(scan, "SRA"),
              "turned": turn_axes(scan), "resampled": resampled}  # fmt: skip
  masks = _predict(arguments.workdir, variants)
  reference = to_canonical(masks["original"]).array
  equal = {
    name: bool(np.array_equal(to_canonical(masks[name]).array, reference))
    and bool(np.allclose(masks[name].affine, variants[name].affine, atol=1e-5))
    for name in ("LPS", "permuted", "turned")
  }
  there = _onto_turned_grid(masks["original"], 0).array
  answer = masks["resampled"].array > 0
  figures = {
    "voxels": int(reference.sum()),
    "dsc_original": dice_score(count_voxels(masks["original"].array > 0, label.array > 0)),
    "equal_voxel_for_voxel": equal,
    "dsc_resampled": dice_score(count_voxels(answer, truth.array > 0)),
    "dsc_resampled_against_original_mask": dice_score(count_voxels(answer, there > 0)),
  }
  keep(figures, arguments.output)
  sys.exit(not all(equal.values()))


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name, what in (("workdir", "a trained run"), ("input", "a scan"), ("label", "its pancreas")):
    parser.add_argument(f"--{name}", required=True, help=what)
  parser.add_argument("--output", help="JSON file for the figures")
  return parser.parse_args()


def on_axes(volume: Volume, codes: str) -> Volume:
  """The same voxels stored on other axes, such as 'LPS'."""
  ornt = nib.orientations
  start = ornt.io_orientation(volume.affine)
  turn = ornt.ornt_transform(start, ornt.axcodes2ornt(codes))
  affine = volume.affine @ ornt.inv_ornt_aff(turn, volume.shape)
  return Volume(ornt.apply_orientation(volume.array, turn), affine)


def turn_axes(volume: Volume) -> Volume:
  """Turns the affine of a volume about the world's Z axis; its voxels stay."""
  return Volume(volume.array, _rotation() @ volume.affine)


def _rotation() -> np.ndarray:
  angle = np.deg2rad(_DEGREES)
  rotation = np.eye(4)
  rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  return rotation


def _onto_turned_grid(volume: Volume, order: int) -> Volume:
  """Resampled (order 1 linear, 0 nearest) onto its own grid turned about its centre."""
  centre = np.append((np.array(volume.shape) - 1) / 2, 1)
  affine = volume.affine.copy()
  affine[:3, :3] = _rotation()[:3, :3] @ affine[:3, :3]
  affine[:3, 3] += (volume.affine @ centre - affine @ centre)[:3]
  to_source = np.linalg.inv(volume.affine) @ affine
  array = ndimage.affine_transform(
    volume.array.astype(np.float32), to_source, order=order, cval=float(volume.array.min())
  )
  return Volume(np.rint(array).astype(volume.array.dtype), affine)


def _predict(workdir: str, variants: dict[str, Volume]) -> dict[str, Volume]:
  """Masks of the variants, through files and the command."""
  with tempfile.TemporaryDirectory() as folder:
    scans, masks = Path(folder, "scans"), Path(folder, "masks")
    for name, volume in variants.items():
      write_nifti(scans / f"{name}.nii.gz", volume)
    flags_ = [f"--workdir={workdir}", f"--input={scans}", f"--output={masks}"]
    subprocess.run([sys.executable, "-m", "attn_unet_jax.predict", *flags_], check=True)
    return {name: read_label(masks / f"{name}.nii.gz") for name in variants}


if __name__ == "__main__":
  main()
