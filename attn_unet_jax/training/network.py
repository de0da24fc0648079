"""The network that a config asks for, and the patches that it takes."""

from flax import linen as nn
from ml_collections import ConfigDict

from attn_unet_jax import models
from attn_unet_jax.runtime.errors import UserError


def network(config: ConfigDict, num_classes: int) -> nn.Module:
  """The run's network; `num_classes` counts the background.

  Raises:
    UserError: its options or classes do not fit, or it cannot take the configured patch; then
      names the nearest that it can.
  """
  try:
    module = models.build(num_classes=num_classes, **config.model)
  except ValueError as error:
    raise UserError(f"config.data.labels={config.data.labels!r}: {error}") from None
  for key, patch in (("data", config.data.patch), ("inference", window(config))):
    try:
      nearest = models.nearest_patch(module, patch)
    except ValueError as error:
      raise UserError(f"config.model: {error}") from None
    if nearest != patch:
      raise UserError(
        f"config.{key}.patch={patch}: {config.model.name} cannot take it; the nearest that it can "
        f"is {nearest}"
      )
  return module


def window(config: ConfigDict) -> tuple[int, int, int]:
  """Patch of the sliding window."""
  inference = config.inference
  return inference.patch if any(inference.patch) else config.data.patch
