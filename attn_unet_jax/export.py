"""Exports a run as one file that runs without this program: StableHLO with a runner, or ONNX.

  python -m attn_unet_jax.export --workdir=runs/a --output=EXPORTED
  python -m attn_unet_jax.export --workdir=runs/a,runs/b --output=EXPORTED/pancreas.stablehlo
  python -m attn_unet_jax.export --workdir=runs/a --output=EXPORTED --format=onnx

The folder gets three files: the network as StableHLO for cpu, cuda and tpu (network.stablehlo);
what else a segmentation needs, such as spacing, windows and classes (network.json); and
run_exported.py, which segments NIfTI scans with jax, numpy, scipy and nibabel alone. Several runs
are averaged. With --format=onnx it gets network.onnx and network.json: the network was run in
onnxruntime, and its probabilities differ from the run's in float32 by 1e-5 at most (needs the extra
onnx).
"""

from pathlib import Path
from typing import Any, cast

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
  "output", None, "A folder, or a file in it that ends in .stablehlo or .onnx.", required=True
)
_FORMAT = flags.DEFINE_enum(
  "format",
  "stablehlo",
  ["stablehlo", "onnx"],
  "How the network is written: stablehlo for JAX; onnx (needs the extra onnx) for other runtimes.",
)


def main() -> None:
  """Exports what the flags say."""
  from attn_unet_jax.workflows.export_run import export_run  # these load JAX
  from attn_unet_jax.workflows.open_ensemble import split_workdirs

  files = export_run(
    split_workdirs(_WORKDIR.value or ""),
    Path(_OUTPUT.value or ""),
    cast(Any, _FORMAT.value),  # one of those that the flag allows
  )
  for path in files:
    print_line(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
