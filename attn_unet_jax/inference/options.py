"""The options of prediction: the sliding window and the processing of the mask."""

from dataclasses import dataclass
from typing import Literal

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.labels import class_names
from attn_unet_jax.runtime.options import BELOW_ONE, NOT_NEGATIVE, Options, one_of, option


@dataclass(frozen=True)
class InferenceOptions(Options):
  """The options of the sliding window, and of the mask that is made of its probabilities."""

  window: str = option(
    "patch",
    "patch: windows of that size over all; plan: within the body; large: and larger.",
    one_of("patch", "plan", "large"),
  )
  patch: tuple[int, int, int] = option(
    (0, 0, 0), "Sliding window, voxels of the working grid; zeros: data.patch.", NOT_NEGATIVE
  )
  overlap: float = option(0.5, "Overlap of neighbouring windows, a fraction.", BELOW_ONE)
  class_weights: tuple[float, ...] = option(
    (), "Divide the probabilities, background first: undoes a loss's weights; (): none."
  )
  within_body: bool = option(
    False, "Whether the air around the patient, and the table in it, are background."
  )
  largest_component: bool = option(
    False, "Whether only the largest component of each class's mask is kept; V-Net: yes."
  )
  one_piece: str = option(
    "",
    "Classes, such as pancreas,liver, of which only the most certain component is kept.",
  )
  postprocess: Literal["validation", "none"] = option(
    "validation", "Whether steps after the network are chosen on the validation cases, 3 or more."
  )

  @property
  def one_piece_names(self) -> tuple[str, ...]:
    """The classes of `one_piece`."""
    return tuple(name for part in self.one_piece.split(",") if (name := part.strip()))


@dataclass(frozen=True)
class PredictionRecipe:
  """The options that a prediction reads, beside its network.

  Attributes:
    data: how the working grid is reached, and the patch.
    inference: the sliding window and the processing of the mask.
  """

  data: DataOptions = DataOptions()
  inference: InferenceOptions = InferenceOptions()

  @property
  def one_piece_values(self) -> tuple[int, ...]:
    """The values of the classes of `inference.one_piece`."""
    asked, names = self.inference.one_piece_names, class_names(self.data.labels)
    return tuple(value for value, name in enumerate(names, 1) if name in asked)

  @property
  def window(self) -> tuple[int, int, int]:
    """The shape of the sliding window, voxels of the working grid."""
    # Zeros, the default, stand for the patch of training.
    return self.inference.patch if any(self.inference.patch) else self.data.patch
