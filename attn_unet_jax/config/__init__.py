"""Every key of a run: composed from the options of the packages, read from flags, kept in JSON."""

from attn_unet_jax.config.draft import default

__all__ = ["default"]
