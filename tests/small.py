"""The config file that tests give to commands: the defaults, changed by flags."""

from attn_unet_jax.config.draft import default as get_config  # noqa: F401
