"""Scripts that measure speed, each printing and storing its figures with machine and versions.

They import the package; nothing imports them.
"""

import attn_unet_jax  # noqa: F401  # first: memory in large pages, as in the commands
