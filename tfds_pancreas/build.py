"""Builds a data set of labelled scans as sharded records (ArrayRecord, no TensorFlow).

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m tfds_pancreas.build --dataset=pancreas_ct/iso2mm --manual_dir=DIR --data_dir=data

phantom_ct/tiny (8 coarse phantoms, for tests) and phantom_ct/demo (66) are made from nothing.

pancreas_ct, decathlon_pancreas, btcv, gibson_ct and folder_ct are made from the files under
--manual_dir. With an empty one, the command lists the files that belong there. Their configs are
native, iso2mm, iso1mm, or another iso<k>mm. A suffix asks for more: pancreas_ct/native_82 keeps
duplicates, decathlon_pancreas/native_tumour labels tumours apart, and folder_ct/native_NAME names a
collection. Every case is checked; the figures are in build_report.json beside the records.

painted_ct is CT painted on the label maps of real abdomens in --manual_dir. It has the configs tiny
and demo as well.

A data set that exists already is left alone. A build that was interrupted leaves no data set: run
the command again, which removes what is left of it. Scans are read by --workers processes (1 to 2
GB each), or by Apache Beam on the machines of --beam_runner, which must all see --manual_dir and
--data_dir:

  ... --beam_runner=FlinkRunner --beam_options=flink_master=HOST:8081,parallelism=64
"""

import time

from absl import flags

from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.acceptance import ACCEPT_HELP, parse_acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.signals import Interrupted

_DATASET = flags.DEFINE_string("dataset", None, "What to build, NAME/CONFIG.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the records go.", required=True)
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Where the downloaded files lie.")
_SKIP = flags.DEFINE_bool("skip_bad_cases", False, "Leave out cases that fail their checks.")
_ACCEPT = flags.DEFINE_string("accept", "", ACCEPT_HELP)
_WORKERS = flags.DEFINE_integer(
  "workers", None, "Processes that read scans; by cores and memory if not given.", lower_bound=1
)
_BEAM_RUNNER = flags.DEFINE_string(
  "beam_runner", None, "Runner of Apache Beam, instead of --workers."
)
_BEAM_OPTIONS = flags.DEFINE_list(
  "beam_options", [], "Options of Apache Beam, NAME=VALUE,NAME=VALUE."
)


def main() -> None:
  """Builds what the flags say, and prints where it is."""
  accept = parse_acceptance(_ACCEPT.value or "")
  from tfds_pancreas.build_dataset import build_dataset  # loads tensorflow-datasets
  from tfds_pancreas.records import REPORT_FILE, find_built_version

  start = time.perf_counter()
  # Asked before the build: afterwards a new data set looks like one that was there.
  existing = find_built_version(_DATASET.value, _DATA_DIR.value)
  try:
    directory = build_dataset(
      _DATASET.value,
      _DATA_DIR.value,
      manual_dir=_MANUAL_DIR.value,
      skip_bad_cases=_SKIP.value,
      accept=accept,
      workers=_WORKERS.value,
      beam_runner=_BEAM_RUNNER.value,
      beam=_BEAM_OPTIONS.value,
    )
  except (Interrupted, KeyboardInterrupt):
    print_line(f"{_DATASET.value}: stopped, nothing is built; run the command again")
    raise
  done = f"built in {time.perf_counter() - start:.0f} s"
  if existing:
    done = "already there" + (", --manual_dir is not looked at" if _MANUAL_DIR.value else "")
  print_line(f"{_DATASET.value}: {done}: {directory}")
  if (directory / REPORT_FILE).is_file():
    print_line(f"{_DATASET.value}: figures of every case: {directory / REPORT_FILE}")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
