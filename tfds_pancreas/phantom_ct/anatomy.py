"""A whole abdomen as a label map, from a seed."""

import numpy as np

from tfds_pancreas.abdomen import bowel, trunk, viscera
from tfds_pancreas.abdomen.canvas import LabelCanvas
from tfds_pancreas.phantom_ct import pancreas
from tfds_pancreas.phantom_ct.patient import draw_patient, map_to_patient_frame


def draw_label_map(
  seed: int | tuple[int, ...],
  shape: tuple[int, int, int],
  spacing: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one patient's abdomen.

  Args:
    seed: equal seeds, shapes and spacings give equal bits.
    shape: voxels of the field of view, [X, Y, Z]; about 310 x 270 x 250 mm hold an abdomen.
    spacing: millimetres between voxels.

  Returns:
    labels uint8 [X, Y, Z] with the values of organs.ORGANS, and the affine float64 [4, 4] from
    voxel index to millimetres in RAS+, whose origin is the middle of the field of view.
  """
  rng = np.random.default_rng(seed)
  patient = draw_patient(rng)
  canvas = LabelCanvas(rng, map_to_patient_frame(rng, patient, shape, spacing), spacing)
  course = patient.pancreas_course
  # An organ takes only fat that no other has taken. So the stiff ones of regular shape come first,
  # then those that give way to them.
  trunk.draw_trunk(canvas, patient)
  viscera.draw_kidneys(rng, canvas)
  viscera.draw_vessels(rng, canvas, course)
  pancreas.draw_pancreas(rng, canvas, patient)
  bowel.draw_duodenum(rng, canvas, course)
  viscera.draw_spleen(rng, canvas, patient)
  viscera.draw_liver(rng, canvas, patient)
  bowel.draw_stomach(rng, canvas, course)
  bowel.draw_colon(rng, canvas)
  bowel.draw_small_bowel(rng, canvas, course)
  return canvas.labels, _make_centred_affine(shape, spacing)


def _make_centred_affine(
  shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> np.ndarray:
  affine = np.diag((*spacing, 1.0))
  affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
  return affine
