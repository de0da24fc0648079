r"""How well the expected DSC of a network's masks orders scans of several kinds by their true DSC.

  python -m benchmarks.real_ct --network=builtin:pancreas --data_dir=data --workdir=runs/real_ct \
    --parts=slabs,paintings --paintings=painted_ct/maps
  python -m attn_unet_jax.evaluate --workdir=builtin:pancreas --output=runs/phantoms \
    --config.data.dataset=phantom_ct/demo --config.data.dir=data --part=test \
    --config.data.labels=pancreas,liver=none,spleen=none,stomach=none,duodenum=none,kidney=none
  python -m benchmarks.quality --tables=slabs=runs/real_ct/slabs,paintings=runs/real_ct/paintings,\
phantoms=runs/phantoms --output=benchmarks/results/quality.json

The tables are the `quality.csv` that `evaluate` writes, one below each folder. A class is ranked
within each kind of scan, and over all of them together.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runtime.process import run_command
from benchmarks.quality_tables import rank_tables
from benchmarks.result import keep

_TABLES = flags.DEFINE_list("tables", None, "KIND=FOLDER,... with scores.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Ranks what the flags name."""
  pairs = [text.partition("=") for text in _TABLES.value or []]
  keep(rank_tables({kind: Path(folder) for kind, _, folder in pairs}), _OUTPUT.value)


if __name__ == "__main__":
  run_command(main)
