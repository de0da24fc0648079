"""Looks at scans and labels before any training: what is wrong, how wrong, and what to do.

  python -m attn_unet_jax.check --input=DATA [--label_files=PATH] [--output=DIR]
  python -m attn_unet_jax.check --config.data.dataset=pancreas_ct/native --config.data.dir=data

DATA is a training folder (imagesTr, labelsTr), a NIfTI file, a DICOM folder or .zip, or a folder of
such scans; --label_files names the label of a scan, or a folder of labels of the scans' names. A
bad file does not end it: all are named. --config (as for training) says what label values mean and
how large a patch is. --output keeps check.json and contact sheets. Status 2 if there is an error.
"""

from pathlib import Path

from absl import flags, logging

from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError

_INPUT = flags.DEFINE_string("input", None, "A scan, a folder of scans, or a training folder.")
_LABEL_FILES = flags.DEFINE_string(
  "label_files", None, "The label of the scan, or a folder of labels."
)
_LABELS = flags.DEFINE_string("labels", None, "The old name of --label_files.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for check.json and contact sheets.")
_THREADS = flags.DEFINE_integer(
  "threads", None, "Cases that are open at a time; by cores if not given, 4 at most.", lower_bound=1
)
# With a default: scans can be looked at before there is any experiment.
define_config("pancreas")


def main() -> None:
  """Checks what the flags name."""
  logging.set_verbosity(logging.ERROR)  # what readers warn of is found here by itself
  # No data set is required: --input may name scans that are none yet.
  config = CONFIG_FLAGS.read(data=False)
  # Both would leave open which is meant, and neither leaves nothing to look at.
  if bool(_INPUT.value) == bool(config.data.dataset):
    raise UserError(
      "give --input=PATH, or --config.data.dataset=NAME/CONFIG with --config.data.dir"
    )
  from attn_unet_jax.workflows.check_data import check_data  # loads the readers of scans

  source, label_files, output = (
    Path(path) if path else None for path in (_INPUT.value, _label_files(), _OUTPUT.value)
  )
  # Each thread holds a case in memory, so that cores alone do not decide.
  threads = _THREADS.value or min(count_usable_cores(), 4)
  check_data(config.data, source, label_files, output, threads)


def _label_files() -> str | None:
  if _LABELS.value:
    print_line("--labels is called --label_files now")
  return _LABEL_FILES.value or _LABELS.value


def run() -> None:
  """Starts the command."""
  process.run_command(main, CONFIG_FLAGS)


if __name__ == "__main__":
  run()
