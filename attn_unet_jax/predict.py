"""Segments scans with a trained run; every answer lies on the grid of its own file.

  python -m attn_unet_jax.predict --workdir=runs/a --input=SCAN.nii.gz --output=MASK.nii.gz
  python -m attn_unet_jax.predict --workdir=runs/a --input=FOLDER --output=FOLDER

Masks are uint8: 0 background, then the classes in the order of config.data.labels. An answer that
is there already is made again.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from attn_unet_jax import command
from attn_unet_jax.data.dataset import nifti_files
from attn_unet_jax.errors import UserError
from attn_unet_jax.inference.segment import segment
from attn_unet_jax.inference.trained import open_run
from attn_unet_jax.training.logs import say
from attn_unet_jax.volumes.checks import check_image
from attn_unet_jax.volumes.nifti import read_nifti, write_nifti

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_INPUT = flags.DEFINE_string("input", None, "A NIfTI file, or a folder of them.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The mask, or a folder of them.", required=True)


def main() -> None:
  """The command."""
  pairs = list(scans(Path(_INPUT.value), Path(_OUTPUT.value)))
  _check_writable(pairs[0][1].parent)
  trained = open_run(Path(_WORKDIR.value))
  names = ", ".join(f"{index + 1} {name}" for index, name in enumerate(trained.classes))
  for index, (path, output) in enumerate(pairs):
    began = time.monotonic()
    image = read_nifti(path)
    check_image(image, path)
    mask = segment(image, trained.system, trained.config)
    write_nifti(output, mask, like=path)
    millilitres = (mask.array > 0).sum() * mask.voxel_volume_ml
    say(
      f"{index + 1}/{len(pairs)} {output}: {millilitres:.1f} ml ({names}), "
      f"{time.monotonic() - began:.1f} s"
    )


def _check_writable(folder: Path) -> None:
  """Before the work, not after it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f"--output: {folder} cannot be written ({error.strerror})") from None


def scans(source: Path, output: Path) -> Iterator[tuple[Path, Path]]:
  """Input and output file of every scan.

  Raises:
    UserError: there is nothing to segment, or the output does not fit the input.
  """
  if source.is_dir():
    found = nifti_files(source)
    if not found:
      raise UserError(f"--input={source}: no .nii or .nii.gz files in it")
    if output.name.endswith((".nii", ".nii.gz")):
      raise UserError(f"--output={output}: must be a folder, since --input is one")
    for name, path in found.items():
      yield path, output / f"{name}.nii.gz"
  elif not source.exists():
    raise UserError(f"--input={source}: not found; give a NIfTI file or a folder of them")
  elif output.is_dir() or not output.name.endswith((".nii", ".nii.gz")):
    raise UserError(f"--output={output}: must end in .nii or .nii.gz, since --input is a file")
  else:
    yield source, output


if __name__ == "__main__":
  command.run(main)
