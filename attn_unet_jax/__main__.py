"""All commands under one name: `attn-unet-jax VERB --flags`, or `python -m attn_unet_jax VERB`.

`attn-unet-jax VERB --help` lists the flags of a command; `python -m MODULE` starts it as well.
"""

import importlib
import sys

from attn_unet_jax import __version__
from attn_unet_jax.runtime.huge_pages import enable_huge_pages

# Verb -> module and what it does.
COMMANDS = {
  "demo": ("attn_unet_jax.demo", "builds phantom scans, trains on them and tests: minutes"),
  "train": ("attn_unet_jax.main", "trains a network, then tests it"),
  "predict": ("attn_unet_jax.predict", "segments scans with a trained run"),
  "evaluate": ("attn_unet_jax.evaluate", "scores a run, or folders of masks"),
  "serve": ("attn_unet_jax.serve", "answers scans over HTTP with a trained run"),
  "export": ("attn_unet_jax.export", "writes a network that runs without this program"),
  "report": ("attn_unet_jax.report", "makes a page of a run: curves, scores, cases"),
  "check": ("attn_unet_jax.check", "looks at scans and labels before any training"),
  "compare": ("attn_unet_jax.compare", "puts the scores of runs side by side, with paired tests"),
  "info": ("attn_unet_jax.info", "says what a config asks of a machine"),
  "convert": ("attn_unet_jax.convert", "makes a run of PyTorch weights"),
  "build": ("tfds_pancreas.build", "turns a data set into sharded records"),
}


def main() -> None:
  """Starts the command that the first argument names."""
  verb, *arguments = sys.argv[1:] or ["--help"]
  if verb in ("--version", "-V"):
    print(__version__)
  elif verb in COMMANDS:
    # First of all: it starts the process again, which is cheap while nothing is imported.
    enable_huge_pages()
    # Only the module that was asked for, so that `--help` and text commands load no JAX.
    module = importlib.import_module(COMMANDS[verb][0])
    # absl parses these, and calls the program by the first one in its help.
    sys.argv = [f"attn-unet-jax {verb}", *arguments]
    module.run()
  elif verb in ("--help", "-h", "help"):
    print(_describe_commands())
  else:
    print(f"error: {verb!r} is no command; {_describe_commands()}", file=sys.stderr)
    sys.exit(2)


def _describe_commands() -> str:
  lines = [f"  {verb:<10}{about}" for verb, (_, about) in COMMANDS.items()]
  return "\n".join(["attn-unet-jax VERB --flags, where VERB is one of", *lines])


if __name__ == "__main__":
  main()
