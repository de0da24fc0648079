"""Segments scans with a trained run; every answer lies on the grid of its own file.

  python -m attn_unet_jax.predict --workdir=runs/a --input=SCAN.nii.gz --output=MASK.nii.gz
  python -m attn_unet_jax.predict --workdir=runs/a --input=DICOM_FOLDER --output=MASK.nii.gz
  python -m attn_unet_jax.predict --workdir=runs/a --input=FOLDER --output=FOLDER
  python -m attn_unet_jax.predict --workdir=runs/a --input='scans/*.nii.gz' --output=FOLDER
  python -m attn_unet_jax.predict --workdir=runs/a --input=SCANS.csv --output=FOLDER
  ... --input=DICOM_FOLDER --output=MASK.dcm --output_format=dicom-seg
  python -m attn_unet_jax.predict --workdir=runs/a,runs/b,runs/c --input=FOLDER --output=FOLDER

A scan is a NIfTI file, or a folder or .zip with a CT series of DICOM slices; --series chooses one
of several series. The third to the fifth form take many: every scan in a folder, those that a
pattern matches, and those in the column input of a CSV file (its column output names their masks).
The last form averages the answers of several runs. Masks are
uint8: 0 background, then the classes in the order of config.data.labels, whose names stand in the
file's extension. The millilitres of each class are printed, written with --json, and for a folder
of masks stand in volumes.csv; --preview draws them, and --report writes a page with a viewer. Masks
in a folder that are there already, of the same run and scans, are left unless --again is given. A
scan that cannot be segmented is named, the others are segmented; the status is 2 then.
--workdir=builtin:NAME is a network that comes with the program; builtin:pancreas is used where no
run is named, if this version has it.
"""

from pathlib import Path
from typing import Any, cast

from absl import flags

from attn_unet_jax.runs.builtin import announce_releases, choose_standard, find_runs
from attn_unet_jax.runtime import process, xla
from attn_unet_jax.runtime.acceptance import ACCEPT_HELP, parse_acceptance
from attn_unet_jax.runtime.console import print_line

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run; or several, a,b,c, whose answers are averaged. Or builtin:NAME, a network "
  "that comes with the program; without the flag builtin:pancreas, if there is one.",
)
_INPUT = flags.DEFINE_string(
  "input",
  None,
  "A NIfTI file, a DICOM folder or .zip; or many: a folder of them, a quoted pattern, a .csv.",
  required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "The mask, or a folder of them.", required=True)
_SERIES = flags.DEFINE_string(
  "series", None, "SeriesInstanceUID to segment, where --input holds several DICOM series."
)

_BOXES = flags.DEFINE_string(
  "boxes", None, "JSON file of boxes to look in, as of config.data.boxes, by the masks' names."
)
_FORMAT = flags.DEFINE_enum(
  "output_format",
  "nifti",
  ["nifti", "dicom-seg", "rtstruct"],
  "How masks are written: nifti; or dicom-seg (needs the extra dicom) or rtstruct, which refer to "
  "the slices of a scan in DICOM.",
)
_JSON = flags.DEFINE_bool(
  "json", False, "Also write millilitres and names of the classes to NAME.json beside each mask."
)
_AGAIN = flags.DEFINE_bool(
  "again", False, "Also make those masks in a folder again that this run made of these scans."
)
_PREVIEW = flags.DEFINE_bool(
  "preview", False, "Also draw each scan with its mask, to NAME.png beside it."
)
_REPORT = flags.DEFINE_bool(
  "report",
  False,
  "Also write a page with a viewer of each scan and its mask, to NAME.html beside it. With "
  "--attention and --save_uncertainty it shows these maps too.",
)
_NO_POSTPROCESS = flags.DEFINE_bool(
  "no_postprocess", False, "Without the steps after the network that the run chose on validation."
)
_SAVE_PROBABILITIES = flags.DEFINE_bool(
  "save_probabilities",
  False,
  "Also write each class's probability, in 16 bits, to NAME_probabilities.nii.gz beside each mask.",
)
_SAVE_UNCERTAINTY = flags.DEFINE_bool(
  "save_uncertainty",
  False,
  "Also write the entropy of the probabilities, 0 to 1, to NAME_uncertainty.nii.gz.",
)
_ATTENTION = flags.DEFINE_bool(
  "attention",
  False,
  "Also write the coefficients of the network's attention gates, 0 to 1, to NAME_attention.nii.gz.",
)
_TTA = flags.DEFINE_string(
  "tta",
  "",
  "Test-time augmentation: axes along which predictions of mirrored scans are averaged; x: left "
  "and right, y: front and back, z: head and feet. Each doubles the time.",
)
_TTA_SCALES = flags.DEFINE_list(
  "tta_scales",
  [],
  "Test-time augmentation: scales of copies whose predictions are averaged too, such as 0.9,1.1. "
  "Each takes as long again.",
)
_ENGINE = flags.DEFINE_enum(
  "engine",
  "auto",
  ["auto", "jax", "openvino"],
  "What computes the network: openvino (a CPU; needs the extra cpu), jax, or auto: openvino where "
  "it is installed and answers as jax does.",
)
_PRECISION = flags.DEFINE_enum(
  "precision",
  "float32",
  ["float32", "bfloat16"],
  "The type in which openvino computes; bfloat16 is faster on a CPU that has it, and less exact.",
)
_ACCEPT = flags.DEFINE_string("accept", "", ACCEPT_HELP)


def main() -> None:
  """Segments what the flags say."""
  accept = parse_acceptance(_ACCEPT.value or "")
  from attn_unet_jax.inference.mirrors import parse_mirrors  # these load JAX
  from attn_unet_jax.inference.scales import parse_scales
  from attn_unet_jax.workflows.options import AnswerOptions, EngineOptions
  from attn_unet_jax.workflows.segment_scans import segment_scans

  # Required flags have values; `or` says so to the type checker.
  source, output = Path(_INPUT.value or ""), Path(_OUTPUT.value or "")
  # Not a required flag of absl: without it the bundled network answers.
  missing = process.describe_missing("workdir", __doc__ or "")
  workdirs = find_runs(_WORKDIR.value or choose_standard(missing))
  announce_releases(workdirs)
  print_line(f"device: {xla.describe_devices()}")
  options = AnswerOptions(
    series=_SERIES.value,
    boxes_file=_BOXES.value,
    accept=accept,
    again=bool(_AGAIN.value),
    postprocess=not _NO_POSTPROCESS.value,
    save_probabilities=bool(_SAVE_PROBABILITIES.value),
    save_uncertainty=bool(_SAVE_UNCERTAINTY.value),
    attention=bool(_ATTENTION.value),
    mirrors=parse_mirrors(_TTA.value or ""),
    scales=parse_scales(_TTA_SCALES.value or []),
    as_json=bool(_JSON.value),
    preview=bool(_PREVIEW.value),
    report=bool(_REPORT.value),
    engine=EngineOptions(cast(Any, _ENGINE.value), cast(Any, _PRECISION.value)),
    output_format=cast(Any, _FORMAT.value),  # one of those that the flag allows
  )
  segment_scans(workdirs, source, output, options)


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
