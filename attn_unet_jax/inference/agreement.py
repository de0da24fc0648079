"""How far the members of an ensemble agree about a scan."""

from collections.abc import Sequence

import numpy as np


class MemberAgreement:
  """A count of the voxels in which members say what their mean says.

  Of several predictions, as of mirror images of a scan, the counts are added up.
  """

  def __init__(self) -> None:
    self._joint: np.ndarray | None = None  # by member, class of the mean and class of the member

  def clear(self) -> None:
    """Forgets what was counted, before another scan."""
    self._joint = None

  def add(self, members: Sequence[np.ndarray], mean: np.ndarray, classes: int) -> None:
    """Counts the voxels of a prediction.

    Args:
      members: the likeliest class by each member, uint8 [X, Y, Z].
      mean: that by their mean.
      classes: their number, with the background.
    """
    counted = np.zeros((len(members), classes**2), np.int64)
    for counts, labels in zip(counted, members, strict=True):
      # Plane by plane: the indices are 8 bytes a voxel.
      for ours, theirs in zip(mean, labels, strict=True):
        pairs = ours.astype(np.intp) * classes + theirs
        counts += np.bincount(pairs.ravel(), minlength=classes**2)
    joint = counted.reshape(-1, classes, classes)
    self._joint = joint if self._joint is None else self._joint + joint

  def measure(self) -> list[float]:
    """Returns for each class but the background the mean DSC of the members with their mean.

    It is 1 for a class that nobody sees; the list is empty where nothing was counted.
    """
    if self._joint is None:
      return []
    agreed = np.diagonal(self._joint, axis1=1, axis2=2)
    sizes = self._joint.sum(axis=1) + self._joint.sum(axis=2)
    dsc = np.divide(2 * agreed, sizes, out=np.ones(sizes.shape), where=sizes > 0)
    return [float(value) for value in dsc.mean(axis=0)[1:]]
