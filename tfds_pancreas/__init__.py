"""Data sets as sharded records: each sub-package is one TFDS builder, written without TensorFlow.

`records` has what all builders share and how their records are read; `build` is the command; each
data set is a package named like it. This package knows nothing of networks or training; it imports
from `attn_unet_jax` only `errors`, `volumes` and the frame of a command.
"""
