"""How fast real scans become records, and in how much memory: pancreas_ct from DICOM files.

python -m benchmarks.build_speed --output=benchmarks/results/build_speed.json

Scans of 512 x 512 x 240 are painted from one phantom anatomy, each with noise of its own, and
written as uncompressed DICOM with NIfTI labels into a temporary folder (130 MB a scan). Each build
is a process of its own, as a user starts it. Memory is the sum of the resident sets of the build's
processes, sampled twenty times a second; a page that they share counts once for each of them. The
files were written just before, so the system has them in its cache. On a busy machine CPU seconds
say more than scans per minute; `load_before` is the load average.
"""

import contextlib
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from absl import app, flags
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from benchmarks.result import keep, machine
from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.phantom_ct.anatomy import draw_label_map

_CASES = flags.DEFINE_integer("cases", 6, "scans in the collection")
_CONFIGS = flags.DEFINE_list("configs", ["native", "iso1mm"], "grids to build")
_WORKERS = flags.DEFINE_list("workers", ["1", "2"], "numbers of workers")
_REPEATS = flags.DEFINE_integer("repeats", 3, "builds of each kind, in turn")
_SHAPE = flags.DEFINE_list("shape", ["512", "512", "240"], "voxels of a scan, even numbers")
_FILES = flags.DEFINE_string("files", None, "keep the scans in this folder, or use those there")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")
_EXTENT_MM = (384.0, 384.0, 240.0)


def write_scans(root: pathlib.Path, cases: int, shape: tuple[int, int, int]) -> None:
  """Writes DICOM series and labels as the collection's download has them."""
  (x, y, z), (step_x, step_y, step_z) = (
    shape,
    (mm / n for mm, n in zip(_EXTENT_MM, shape, strict=True)),
  )
  labels, _ = draw_label_map(0, (x // 2, y // 2, z // 2), (2 * step_x, 2 * step_y, 2 * step_z))
  spacing = (step_x, step_y, step_z)
  for axis in range(3):
    labels = labels.repeat(2, axis=axis)
  for number in range(1, cases + 1):
    image = paint_ct(labels, number, spacing=spacing)
    write_scan(root, number, image, (labels == ORGANS["pancreas"]).astype(np.uint8), spacing)


def write_scan(
  root: pathlib.Path,
  number: int,
  image: np.ndarray,
  label: np.ndarray,
  spacing: tuple[float, ...],
) -> None:
  """Writes one case `[X, Y, Z]`, canonical axes, slices from the feet to the head."""
  case = f"PANCREAS_{number:04d}"
  folder = root / "manifest/Pancreas-CT" / case / "study/series"
  folder.mkdir(parents=True)
  for z in range(image.shape[2]):
    one = _slice(image[::-1, ::-1, z].T, z, case, spacing)
    one.save_as(folder / f"1-{z + 1:03d}.dcm", enforce_file_format=True)
  labels = root / "TCIA_pancreas_labels-02-05-2017"
  labels.mkdir(exist_ok=True)
  stored = nib.Nifti1Image(label[::-1, ::-1], np.diag([*spacing, 1.0]))
  nib.save(stored, labels / f"label{number:04d}.nii.gz")


def _slice(hu: np.ndarray, z: int, case: str, spacing: tuple[float, ...]) -> Dataset:
  one = Dataset()
  one.Modality, one.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
  one.SeriesInstanceUID = generate_uid(entropy_srcs=[case])
  one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[case, str(z)])
  one.InstanceNumber, one.SliceThickness = z + 1, spacing[2]
  one.ImagePositionPatient = [0.0, 0.0, round(z * spacing[2], 4)]
  one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  one.PixelSpacing = [spacing[1], spacing[0]]
  one.Rows, one.Columns = hu.shape
  one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
  one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
  one.RescaleSlope, one.RescaleIntercept = 1, -1024
  one.PixelData = (hu + 1024).astype("<u2").tobytes()
  one.file_meta = FileMetaDataset()
  one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  return one


def build_once(files: pathlib.Path, config: str, workers: str) -> dict[str, float]:
  """Builds in a process of its own: seconds, CPU seconds, peak of memory and size of all files."""
  with tempfile.TemporaryDirectory(dir=files.parent) as data:
    command = [sys.executable, "-m", "tfds_pancreas.build", f"--dataset=pancreas_ct/{config}"]
    command += [f"--manual_dir={files}", f"--data_dir={data}", f"--workers={workers}"]
    start, peak, cpu = time.perf_counter(), 0, dict[int, float]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
      while process.poll() is None:
        peak = max(peak, sample(process.pid, cpu))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
      raise RuntimeError(f"{command} ended with status {process.returncode}")
    disk = sum(path.stat().st_size for path in pathlib.Path(data).rglob("*") if path.is_file())
    return {"seconds": seconds, "cpu": sum(cpu.values()), "peak_bytes": peak, "disk_bytes": disk}


def sample(pid: int, cpu: dict[int, float]) -> int:
  """Resident bytes of a process and all that it started; notes what each has used of the CPU."""
  total = 0
  with contextlib.suppress(psutil.NoSuchProcess):
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
      with contextlib.suppress(psutil.NoSuchProcess):
        total += process.memory_info().rss
        times = process.cpu_times()
        cpu[process.pid] = times.user + times.system
  return total


def measure(files: pathlib.Path, cases: int) -> dict[str, Any]:
  """Every config with every number of workers, in turn, so that a busy machine slows them alike."""
  kinds = [(config, workers) for config in _CONFIGS.value for workers in _WORKERS.value]
  found: dict[tuple[str, str], list[dict[str, float]]] = {kind: [] for kind in kinds}
  for _ in range(_REPEATS.value):
    for kind in kinds:
      found[kind].append(build_once(files, *kind))
      print(*kind, found[kind][-1], flush=True)
  result: dict[str, Any] = {}
  for (config, workers), runs in found.items():
    seconds = [run["seconds"] for run in runs]
    result.setdefault(config, {})[f"workers_{workers}"] = {
      "scans_per_minute": round(60 * cases / statistics.median(seconds), 1),
      "median_s": round(statistics.median(seconds), 1),
      "min_s": round(min(seconds), 1),
      "max_s": round(max(seconds), 1),
      "cpu_s_per_scan": round(statistics.median(run["cpu"] for run in runs) / cases, 1),
      "peak_memory_gb": round(max(run["peak_bytes"] for run in runs) / 1e9, 2),
      "records_mb_per_scan": round(runs[0]["disk_bytes"] / cases / 1e6, 1),
    }
  return result


def main(argv: list[str]) -> None:
  """Writes the scans, measures, prints and stores."""
  del argv
  x, y, z = map(int, _SHAPE.value)
  result: dict[str, Any] = {"machine": machine(), "cases": _CASES.value, "shape": (x, y, z)}
  with tempfile.TemporaryDirectory() as folder:
    files = pathlib.Path(_FILES.value or folder, "scans")
    if not files.is_dir():
      write_scans(files, _CASES.value, (x, y, z))
    result |= measure(files, _CASES.value)
  keep(result, _OUTPUT.value)


if __name__ == "__main__":
  enable_huge_pages()  # as the commands of the program do
  app.run(main)
