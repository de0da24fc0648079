"""3-D pancreas segmentation on CT with Attention U-Net, in JAX and Flax.

A CT scan comes in as a file, becomes a *volume* (`volumes/`), is stored as a *record*
(`tfds_pancreas/`), is cut into *patches* on the accelerator (`data/`, `augment/`), trains a
*network* (`models/`, `losses/`, `training/`), and at the end the network's answer goes back onto
the grid of the file it came from (`inference/`) and is scored there (`metrics/`). Only the commands
(`main.py`, `predict.py`, `evaluate.py`, `check.py`, `compare.py`, `info.py`, `convert.py`) know
flags.
"""

import sys

if sys.argv[:1] == ["-m"]:  # Python still looks for the command, and has loaded nothing else
  from attn_unet_jax.runtime import huge_pages

  huge_pages.enable_huge_pages()
