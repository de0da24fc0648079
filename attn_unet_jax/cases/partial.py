"""Partial labels of a case: voxels that are none of the classes that its data set names."""

import dataclasses

import numpy as np

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import LabelMapping, rest_value


def mark_rest(case: WorkingCase, mapping: LabelMapping, place: int = 0) -> WorkingCase:
  """Marks the background of a case whose data set does not name every class.

  Args:
    case: the case.
    mapping: the classes of its label values; those without a value are not named.
    place: the place of the data set among those of the run.

  Returns:
    the case, with `rest_value(place)` where its label was 0.
  """
  # Every class has values: what is 0 is background, and not perhaps one of them.
  if all(mapping.values):
    return case
  label = np.where(case.label == 0, np.uint8(rest_value(place)), case.label)
  return dataclasses.replace(case, label=label)
