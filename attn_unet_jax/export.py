r"""Exports a run: as one file that runs without this program, or as a release for this program.

  python -m attn_unet_jax.export --workdir=runs/a --output=EXPORTED
  python -m attn_unet_jax.export --workdir=runs/a,runs/b --output=EXPORTED/pancreas.stablehlo
  python -m attn_unet_jax.export --workdir=runs/a --output=EXPORTED --format=onnx
  python -m attn_unet_jax.export --workdir=runs/a --output=NAME --format=release --licence=LICENCE
  python -m attn_unet_jax.export --workdir=runs/a,runs/b --output=NAME --format=release \
    --licence=LICENCE --scores=SCORES

The folder gets four files: the network as StableHLO for cpu, cuda and tpu (network.stablehlo); what
else a segmentation needs, such as spacing, windows and classes (network.json); run_exported.py,
which segments NIfTI scans with jax, numpy, scipy and nibabel alone; and MODEL_CARD.md, with data,
recipe, scores and limits. Several runs are averaged. With --format=onnx it gets network.onnx,
network.json and MODEL_CARD.md: the network was run in onnxruntime, and its probabilities differ
from the run's in float32 by 1e-5 at most (needs the extra onnx). --format=release writes a small
folder that is a --workdir of this program wherever it is installed: the parameters in 16 bits,
config, scores, model card and licence. The run must have been tested, and --licence names the
licence of what it learnt. Several runs of one recipe, such as of other seeds, are released as one
whose answers are averaged; --scores names the folder where evaluate has scored their mean.
"""

from pathlib import Path
from typing import Any, cast

from absl import flags

from attn_unet_jax.runs.builtin import find_runs
from attn_unet_jax.runs.release import read_release
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError

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
  ["stablehlo", "onnx", "release"],
  "How the network is written: stablehlo for JAX; onnx (needs the extra onnx) for other runtimes; "
  "release for this program.",
)
_LICENCE = flags.DEFINE_string(
  "licence", None, "Of a release: the licence of the network's values, which follows its data's."
)
_TRAINED_ON = flags.DEFINE_string(
  "trained_on", None, "Of a release: its data in words, such as '18 slabs of portal venous CT'."
)
_SCORES = flags.DEFINE_string(
  "scores", None, "Of a release of several runs: what evaluate wrote for them as its --output."
)


def main() -> None:
  """Exports what the flags say."""
  # Without JAX: a flag that does not fit is refused at once.
  is_release = _FORMAT.value == "release"
  for flag in () if is_release else (_LICENCE, _TRAINED_ON, _SCORES):
    if flag.value is not None:
      raise UserError(f"--{flag.name}: is for --format=release")
  from attn_unet_jax.workflows.export_run import export_run  # these load JAX
  from attn_unet_jax.workflows.release_run import describe_rounding, release_run

  workdirs, output = find_runs(_WORKDIR.value or ""), Path(_OUTPUT.value or "")
  if is_release:
    scores = Path(_SCORES.value) if _SCORES.value else None
    licence, trained_on = _LICENCE.value or "", _TRAINED_ON.value or ""
    files = release_run(workdirs, output, licence, trained_on, scores)
    size = sum(path.stat().st_size for path in files)
    print_line(f"rounded to 16 bits: {describe_rounding(read_release(output).rounding)}")
    print_line(f"{output}: {size / 2**20:.1f} MiB in {len(files)} files")
    return
  # The format is one of those that the flag allows.
  for path in export_run(workdirs, output, cast(Any, _FORMAT.value)):
    print_line(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
