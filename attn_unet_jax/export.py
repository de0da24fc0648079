"""Exports a run as one file that JAX runs without this program, with a runner beside it.

  python -m attn_unet_jax.export --workdir=runs/a --output=EXPORTED
  python -m attn_unet_jax.export --workdir=runs/a,runs/b --output=EXPORTED/pancreas.stablehlo

The folder gets three files: the network as StableHLO for cpu, cuda and tpu (network.stablehlo);
what else a segmentation needs, such as spacing, windows and classes (network.json); and
run_exported.py, which segments NIfTI scans with jax, numpy, scipy and nibabel alone. Several runs
are averaged.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run; or several, a,b,c, whose answers are averaged.",
  required=True,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "A folder, or a file in it that ends in .stablehlo.", required=True
)


def main() -> None:
  """Exports what the flags say."""
  from attn_unet_jax.workflows.export_run import export_run  # these load JAX
  from attn_unet_jax.workflows.open_ensemble import split_workdirs

  files = export_run(split_workdirs(_WORKDIR.value or ""), Path(_OUTPUT.value or ""))
  for path in files:
    print_line(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
