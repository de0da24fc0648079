"""Segments scans with a trained run and writes each mask on the grid of its scan."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.inference.segment import Locate, segment_scan
from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.scan import find_dicom_scans, is_dicom_scan, read_scan
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.open_run import open_run_or_stages


def segment_scans(
  workdir: Path,
  source: Path,
  output: Path,
  series: str | None = None,
  boxes_file: str | None = None,
  *,
  accept: Acceptance = NOTHING,
) -> None:
  """Segments every scan and writes its mask; names the scans that cannot be segmented.

  Args:
    workdir: the run.
    source: a scan, or a folder of scans.
    output: the mask's file, or the folder for the masks.
    series: SeriesInstanceUID to segment if the source contains several DICOM series.
    boxes_file: JSON file of boxes to segment.
    accept: doubts about the scans that the user accepts.

  Raises:
    UserError: the run, the scans or the output do not fit, or a scan was not segmented.
  """
  pairs = list(list_scans(source, output, series=series))
  # Before the run is loaded and compiled, which takes long.
  check_writable(pairs[0][1].parent)
  trained = open_run_or_stages(workdir)
  locate = _choose_locator(trained, [target for _, target in pairs], boxes_file)
  names = ", ".join(f"{index + 1} {name}" for index, name in enumerate(trained.classes))
  failures = []
  for index, (path, target) in enumerate(pairs):
    began = time.monotonic()
    try:
      mask = _segment_file(path, trained, locate(target), series, accept)
    # A bad scan of many must not stop the others; all failures end in one error.
    except UserError as error:
      failures.append(str(error))
      if len(pairs) > 1:
        print_line(f"{index + 1}/{len(pairs)} {target}: not written ({error})")
      continue
    # A DICOM scan has no NIfTI header to copy.
    write_nifti(target, mask, like=None if is_dicom_scan(path) else path)
    millilitres = (mask.array > 0).sum() * mask.voxel_volume_ml
    print_line(
      f"{index + 1}/{len(pairs)} {target}: {millilitres:.1f} ml ({names}), "
      f"{time.monotonic() - began:.1f} s"
    )
  if failures:
    of_all = f"{len(failures)} of {len(pairs)} scans not segmented, the first: "
    raise UserError((of_all if len(pairs) > 1 else "") + failures[0])


def _segment_file(
  path: Path, trained: LoadedRun, locate: Locate | None, series: str | None, accept: Acceptance
) -> Volume:
  image = read_scan(path, series_uid=series, accept=accept)
  data = trained.config.data
  judge = Judge(accept, data.window_hu if data.normalisation == "window" else None)
  for line in judge.judge_scan(image, path, None if is_dicom_scan(path) else path):
    print_line(line)
  return segment_scan(image, trained.system, trained.config, locate, path).mask


def _choose_locator(
  trained: LoadedRun, outputs: Sequence[Path], boxes_file: str | None
) -> Callable[[Path], Locate | None]:
  """Returns what locates the box in the scan of each mask: a stage of the run, or --boxes."""
  if not boxes_file:
    if trained.config.data.boxes:
      raise UserError(
        "the run was trained inside boxes; give the boxes of these scans by --boxes=FILE"
      )
    return lambda _: trained.locate
  boxes = read_boxes(Path(boxes_file))
  check_boxes(boxes, [_mask_name(output) for output in outputs], boxes_file)
  return lambda output: lambda _: boxes[_mask_name(output)]


def _mask_name(output: Path) -> str:
  return output.name.removesuffix(".gz").removesuffix(".nii")


def list_scans(
  source: Path, output: Path, *, series: str | None = None
) -> Iterator[tuple[Path, Path]]:
  """Lists input and output file of every scan.

  Args:
    source: a scan, or a folder of scans.
    output: the mask's file, or the folder for the masks.
    series: the chosen DICOM series; a folder is then one scan, including its subfolders.

  Raises:
    UserError: there is nothing to segment, or the output does not fit the input.
  """
  if not source.exists():
    raise UserError(f"--input={source}: not found; give a NIfTI file, a DICOM folder or its .zip")
  # A folder may have such a name as well.
  is_file = output.name.endswith((".nii", ".nii.gz")) and not output.is_dir()
  if not source.is_dir() and output.is_dir():
    raise UserError(f"--output={output}: a folder; name a file in it, since --input is a file")
  if not source.is_dir() and not is_file:
    raise UserError(f"--output={output}: must end in .nii or .nii.gz, since --input is a file")
  found = _find_scans(source, series)
  if is_file and len(found) > 1:
    raise UserError(
      f"--output={output}: must be a folder, since --input contains {len(found)} scans"
    )
  for name, path in found.items():
    target = output if is_file else output / f"{name}.nii.gz"
    # A mask in the place of its scan would destroy the data.
    if target.resolve() == path.resolve():
      raise UserError(f"--output={output}: would overwrite the scan {path}; choose another")
    yield path, target


def _find_scans(source: Path, series: str | None) -> dict[str, Path]:
  """Finds the scans of `source`, a scan or a folder of scans; paths by name."""
  if series is not None or not source.is_dir():
    return {source.resolve().name: source}
  files, dicom = list_nifti_files(source), find_dicom_scans(source)
  # Masks are named by their scans: one would overwrite the other.
  if twice := sorted(files.keys() & dicom.keys()):
    raise UserError(f"--input={source}: two scans are called {twice[0]}; rename one of them")
  if not files and not dicom:
    raise UserError(f"--input={source}: no .nii, .nii.gz or DICOM files in it")
  return {**files, **dicom}
