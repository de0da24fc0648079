"""Writes report.html: a run's summary, curves, scores and cases on one page.

  python -m attn_unet_jax.report --workdir=runs/a

The page is one file that opens without a network and without this program. A run writes it at its
end; this command writes it again, also of a run that is still being trained. The pictures need the
run's data, where config.json says it lies.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)


def main() -> None:
  """Reports the run that the flag names."""
  from attn_unet_jax.workflows.report_run import report_run  # loads JAX

  print_line(f"report: {report_run(Path(_WORKDIR.value or ''))}")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
