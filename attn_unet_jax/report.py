"""Writes report.html: a run's summary, curves, scores and cases on one page.

  python -m attn_unet_jax.report --workdir=runs/a [--attention]

The page is one file that opens without a network and without this program. A run writes it at its
end; this command writes it again, also of a run that is still being trained. The pictures need the
run's data, where config.json says it lies. --attention shows in them where the gates look.
"""

from absl import flags

from attn_unet_jax.runs.builtin import find_own_run, find_run
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)

_ATTENTION = flags.DEFINE_bool(
  "attention", False, "Run the network again, for the coefficients of its attention gates."
)


def main() -> None:
  """Reports the run that the flag names."""
  from attn_unet_jax.workflows.report_run import report_run  # loads JAX

  text = _WORKDIR.value or ""
  # A release has no cases to show, and nothing is written into it.
  workdir = find_own_run(text, f"{find_run(text) / 'MODEL_CARD.md'} has data, recipe and scores")
  print_line(f"report: {report_run(workdir, attention=bool(_ATTENTION.value))}")


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
