"""Connected components of masks: what hangs together by the faces of its voxels."""

import numpy as np
from scipy import ndimage

SIX_NEIGHBOURS = ndimage.generate_binary_structure(3, 1)


def largest_component(mask: np.ndarray) -> np.ndarray:
  """The largest 6-connected component of a mask, bool [X, Y, Z]; of equal ones the first met.

  Voxels are met along Z first, then Y, then X, however the array lies in memory.
  """
  components, count = ndimage.label(mask, SIX_NEIGHBOURS)
  if count < 2:
    return mask
  return components == np.argmax(np.bincount(components[mask]))


def largest_components(labels: np.ndarray) -> np.ndarray:
  """Keeps of every class its largest component; what else it had becomes background.

  Args:
    labels: class indices uint8 [X, Y, Z], 0 is the background.

  Returns:
    a copy. Each class is looked at within its bounding box alone.
  """
  kept = np.zeros_like(labels)
  for value, where in enumerate(ndimage.find_objects(labels), 1):
    if where is not None:
      kept[where][largest_component(labels[where] == value)] = value
  return kept
