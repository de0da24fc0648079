"""Builds the network that a run's config describes."""

from flax import linen as nn

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.models.build import build_network, nearest_patch
from attn_unet_jax.runtime.errors import UserError


def build_run_network(config: RunConfig, num_classes: int) -> nn.Module:
  """Builds the run's network; `num_classes` counts the background.

  Raises:
    UserError: its options or classes do not fit, or it cannot take the configured patch; the
      message then names the nearest patch that it can take.
  """
  try:
    module = build_network(config.model, num_classes)
  except ValueError as error:
    raise UserError(f"config.data.labels={config.data.labels!r}: {error}") from None
  # The window of prediction may differ from the patch of training; both have to fit.
  for key, patch in (("data", config.data.patch), ("inference", config.window)):
    try:
      nearest = nearest_patch(module, patch)
    except ValueError as error:
      raise UserError(f"config.model: {error}") from None
    if nearest != patch:
      raise UserError(
        f"config.{key}.patch={patch}: {config.model.name} cannot take it; the nearest patch "
        f"that it can take is {nearest}"
      )
  if config.inference.window == "large":
    _check_large(config, module)
  return module


def use_own_forms(module: nn.Module) -> nn.Module:
  """Returns the network with forms of convolution that need no package besides JAX."""
  return module.clone(conv="auto") if getattr(module, "conv", "") == "onednn" else module


def _check_large(config: RunConfig, module: nn.Module) -> None:
  if any(config.inference.patch):
    raise UserError(
      f"config.inference.patch={config.inference.patch}: must be (0, 0, 0) for "
      "config.inference.window='large', which chooses the windows"
    )
  # A network of one's own that does not say is not trusted with larger windows.
  if getattr(module, "answer_depends_on", "window") == "window":
    raise UserError(
      f"config.inference.window='large': {config.model.name} as configured says something else in "
      "a window of another size than data.patch; use plan"
    )
