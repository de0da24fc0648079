"""A scan in, its segmentation on the same grid out."""

from ml_collections import ConfigDict

from attn_unet_jax.data.prepare import working_image
from attn_unet_jax.inference.sliding import System
from attn_unet_jax.volumes.orientation import from_canonical, to_canonical
from attn_unet_jax.volumes.resample import probabilities_to_labels
from attn_unet_jax.volumes.volume import Volume


def segment(image: Volume, system: System, config: ConfigDict) -> Volume:
  """Class indices uint8 on the grid of `image`, whatever its axes and spacing.

  Args:
    image: the scan on its native grid, HU.
    system: what segments a working-grid volume.
    config: the run's config; its `data` section says how the working grid is reached.
  """
  canonical = to_canonical(image)
  working = working_image(canonical, config)
  probabilities = system.predict(working)
  labels = probabilities_to_labels(probabilities, working.grid, canonical.grid)
  return from_canonical(labels.array, image.grid)
