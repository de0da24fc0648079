"""3-D pancreas segmentation on CT with Attention U-Net, in JAX and Flax.

A CT scan comes in as a file, becomes a *volume* (`volumes/`), is stored as a *record*
(`tfds_pancreas/`), is cut into *patches* on the accelerator (`cases/`, `patches/`, `augment/`),
trains a *network* (`models/`, `losses/`, `training/`), and at the end the network's answer goes
back onto the grid of the file it came from (`inference/`) and is scored there (`evaluation/`). What
a command does from beginning to end is in `workflows/`; only the commands know flags.

    import attn_unet_jax

    run = attn_unet_jax.load_run("runs/a")
    scan = attn_unet_jax.read_scan("scan.nii.gz")
    mask = attn_unet_jax.segment(scan, run)  # class indices uint8, on the scan's grid

Importing the package loads neither JAX nor anything else of weight.
"""

from typing import TYPE_CHECKING, Any

# Type checkers and editors do not run `__getattr__`.
if TYPE_CHECKING:
  from attn_unet_jax.api import load_run, read_scan, segment

__version__ = "0.2.0"
__all__ = ["__version__", "load_run", "read_scan", "segment"]


def __getattr__(name: str) -> Any:
  """Loads the functions of `api` when they are first asked for."""
  if name in ("load_run", "read_scan", "segment"):
    from attn_unet_jax import api

    return getattr(api, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
