r"""How well a network does on real CT: test slabs, a whole scan, paintings, and as a start.

  python -m benchmarks.real_ct --network=builtin:pancreas --data_dir=data --workdir=runs/real_ct \
    --parts=slabs,scan,paintings,finetune --scan=ct_nifti_3mm --paintings=painted_ct/maps

Each part is stored when it is done, beside those of other networks, so that they can be taken one
by one; a fine-tuning that was interrupted goes on, and one that is done is not repeated.

  slabs      the test slabs of folder_ct/native_msd07_slabs, patients never seen, DSC over the slab
  scan       a scan with labels of TotalSegmentator's 104 classes: one DSC for each class
  paintings  the test cases of records of painted_ct, maps never seen
  finetune   on 1, 3 and 5 of the test slabs from the network, and from scratch with as many steps;
             scored on the other test slabs, since the network has seen those of the training
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runs.builtin import find_run
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.process import run_command
from benchmarks import real_ct_parts as parts
from benchmarks.result import machine

MEASURES = {
  "slabs": parts.score_slabs,
  "scan": parts.score_scan,
  "paintings": parts.score_paintings,
  "finetune": parts.compare_starts,
}

_NETWORK = flags.DEFINE_string("network", "builtin:pancreas", "A run, a release, or builtin:NAME.")
_PARTS = flags.DEFINE_list("parts", list(MEASURES), "What is measured.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for scores and runs.", required=True)
_SCAN = flags.DEFINE_string(
  "scan", None, "Folder with ct.nii.gz and labels_104.nii.gz, for the part scan."
)
_PAINTINGS = flags.DEFINE_string(
  "paintings", "painted_ct/maps", "Records whose test cases are painted on maps never seen."
)
_STEPS = flags.DEFINE_integer("finetune_steps", 500, "Steps of each training.", lower_bound=1)
_RATE = flags.DEFINE_float("finetune_rate", 5e-4, "Learning rate of those that start from it.")
_SCRATCH_RATE = flags.DEFINE_float("scratch_rate", 1e-3, "Learning rate of those that do not.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/real_ct.json", "JSON to write.")


def main() -> None:
  """Measures part by part, and stores each."""
  asked = _PARTS.value or []
  if unknown := [part for part in asked if part not in MEASURES]:
    raise UserError(f"--parts={unknown[0]}: must be out of {', '.join(MEASURES)}")
  setup = parts.Setup(
    network=_NETWORK.value or "",
    data_dir=_DATA_DIR.value or "",
    workdir=Path(_WORKDIR.value or ""),
    output=Path(_OUTPUT.value or ""),
    scan=_SCAN.value or "",
    paintings=_PAINTINGS.value or "",
    steps=_STEPS.value or 1,
    rate=_RATE.value or 0.0,
    scratch_rate=_SCRATCH_RATE.value or 0.0,
  )
  find_run(setup.network)  # a name that does not exist ends here
  for part in asked:
    on = machine()
    parts.store_part(setup, part, {"machine": on, **MEASURES[part](setup)})


if __name__ == "__main__":
  run_command(main)
