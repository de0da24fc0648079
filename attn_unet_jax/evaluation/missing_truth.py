"""Classes of which nobody knows the truth: the data does not label them, or no case has them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attn_unet_jax.labels import class_names, find_labelled_classes

# The column of `cases.csv` that says whether a case has a class.
TRUTH = "reference_volume_ml"


class MissingTruth(NamedTuple):
  """The classes of a network without a truth in any scored case.

  Attributes:
    unlabelled: those that the data does not label.
    absent: those that the data labels, and that no scored case has.
  """

  unlabelled: tuple[str, ...]
  absent: tuple[str, ...]

  @property
  def classes(self) -> tuple[str, ...]:
    """All of them."""
    return (*self.unlabelled, *self.absent)

  def describe(self) -> list[str]:
    """Says in sentences which classes have no truth, and what follows; none if all have."""
    said = []
    if self.unlabelled:
      said.append(
        f"Without a truth: {', '.join(self.unlabelled)}. The data does not label them, so that "
        "nobody knows what would be right: they have outlines of the prediction, and no scores."
      )
    if self.absent:
      said.append(
        f"In the truth of no case: {', '.join(self.absent)}. Nothing says whether they are found; "
        "whatever is predicted there is a false alarm."
      )
    return said


def find_missing_truth(labels: str, volumes: Mapping[str, Sequence[float]]) -> MissingTruth:
  """Finds the classes without a truth.

  Args:
    labels: the mapping of the data's label values, as in `data.labels`.
    volumes: by scored class the volume of the truth in each case, NaN where it is not known.
  """
  pairs = [*zip(class_names(labels), find_labelled_classes(labels), strict=True)]
  return MissingTruth(
    tuple(name for name, is_labelled in pairs if not is_labelled),
    tuple(
      name
      for name, is_labelled in pairs
      # NaN is not 0: a volume that nobody knows says nothing of the class.
      if is_labelled and name in volumes and all(volume == 0 for volume in volumes[name])
    ),
  )
