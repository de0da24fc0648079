"""Says what a config asks of a machine, as JSON: parameters, operations, memory, devices.

  python -m attn_unet_jax.info --config=experiments/pancreas.py
  python -m attn_unet_jax.info --workdir=runs/a

Starts no training and reads no data, unless --count_foreground=STEPS asks for the part of
foreground in the patches of so many steps: the number for --config.loss_options.foreground.
Operations are those of the direct convolutions and matrix products (a multiply-add is two), counted
in the traced program; a training step is three forward passes. Activation bytes are what a backward
pass keeps: the output of every convolution and normalisation. The memory estimate is these, the
state and the gradients; the training set, which lies in device memory too (3 bytes a voxel of the
working grid), comes on top. `notes`, where there are any, say what would gain nothing on the
devices here: bfloat16 on a CPU. `onednn` says whether model.conv=onednn can be used, and whether
bfloat16 makes a training with it faster.

--target=h100, or --target=v5e:2x4 with --config.train.batch_size=8, compiles the training step for
devices that need not be here, and says what it holds in the memory of each and whether that fits:
within three quarters of a GPU's, what JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says
otherwise, without cuDNN's workspaces. Here too the training set comes on top. Known are a100-40,
a100, h100, h200 with pip install '.[cuda]', and v5e, v5p, v6e with '.[tpu]'; it takes one to
several minutes.
"""

import dataclasses
import json

from absl import flags

from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runs.builtin import find_run
from attn_unet_jax.runs.release import NOTICE, is_release, read_release
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.errors import UserError

define_config(required=False)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "A run whose config counts without --config, or builtin:NAME."
)
_COUNT = flags.DEFINE_integer(
  "count_foreground", 0, "Steps whose patches are read to count foreground.", lower_bound=0
)
_TARGET = flags.DEFINE_string(
  "target", None, "Devices to compile the training step for, such as h100, h100:8 or v5e:4x4."
)


def main() -> None:
  """Prints what the config asks for."""
  # Only to count foreground are scans needed: the rest follows from shapes.
  run = find_run(_WORKDIR.value) if _WORKDIR.value else None
  if run is None and flags.FLAGS.config is None:
    raise UserError(process.describe_missing("config", __doc__ or ""))
  config = CONFIG_FLAGS.read(data=bool(_COUNT.value), run=run)
  from attn_unet_jax.workflows.describe_needs import describe_needs  # loads JAX

  needs = describe_needs(config, _COUNT.value or 0, _TARGET.value)
  if run and is_release(run):
    needs["release"] = {"notice": NOTICE, **dataclasses.asdict(read_release(run))}
    del needs["release"]["seen"]  # digests, which tell a reader nothing
  # Not `print_line`, which would write line breaks out as control characters.
  print(json.dumps(needs, indent=2))


def run() -> None:
  """Starts the command."""
  process.run_command(main, CONFIG_FLAGS)


if __name__ == "__main__":
  run()
