"""Which label voxel belongs to which image voxel.

The label files' headers are no evidence: published converters that agree with each other take the
arrays alone. Label index [i, j] is [column, row] of the DICOM slice, and label slice k belongs to
the slice whose InstanceNumber is k + 1; no axis is flipped.
"""

from collections.abc import Sequence

import numpy as np

from attn_unet_jax.runtime.errors import UserError


def align_label(
  label: np.ndarray, shape: Sequence[int], instance_numbers: Sequence[int]
) -> np.ndarray:
  """Puts a label's slices into the order of its scan's.

  Args:
    label: values [i, j, k] as the file stores them.
    shape: of the scan [column, row, slice], slices by position along their normal.
    instance_numbers: InstanceNumber of each of these slices.

  Returns:
    values [column, row, slice].

  Raises:
    UserError: other sizes, instance numbers other than 1 to n, or in an order that neither rises
      nor falls with the position.
  """
  if label.shape[2] != shape[2]:
    raise UserError(f"the scan has {shape[2]} slices and the label {label.shape[2]}")
  if label.shape != tuple(shape):
    raise UserError(f"slices are {tuple(shape[:2])} in the scan and {label.shape[:2]} in the label")
  order = np.asarray(instance_numbers)
  if sorted(order) != list(range(1, len(order) + 1)):
    raise UserError(
      f"instance numbers run from {order.min()} to {order.max()} over {len(order)} slices, not "
      f"from 1 to {len(order)}, so label slices cannot be assigned"
    )
  # Either direction will do. Numbers that go up and down tell that positions or numbers are wrong,
  # and nothing tells which.
  rises = np.diff(order) > 0
  if rises.any() and not rises.all():
    turn = int(np.flatnonzero(rises != rises[0])[0]) + 1
    raise UserError(
      f"instance numbers neither rise nor fall with the position: {order[turn - 1 : turn + 2]} "
      f"at slices {turn} to {turn + 2}, so label slices cannot be assigned"
    )
  # InstanceNumber counts from 1.
  return label[:, :, order - 1]
