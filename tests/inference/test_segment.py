"""A scan's mask lies on the scan's own grid, and does not depend on how the file stores it."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.inference.segment import segment
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume


class _Threshold:
  """A system that needs no training: the probability rises with HU."""

  def predict(self, volume):
    assert volume.orientation == "RAS"
    foreground = 1 / (1 + np.exp(-(volume.array.astype(np.float32) - 100) / 50))
    return np.stack([1 - foreground, foreground], -1)


@pytest.fixture
def scan():
  rng = np.random.default_rng(0)
  smooth = ndimage.gaussian_filter(rng.normal(0, 1, (24, 20, 18)), 2)
  hu = (smooth / smooth.std() * 150).astype(np.int16)
  return Volume(hu, np.diag([1.5, 2.0, 2.5, 1.0]))


def _turned(affine, degrees=12):
  a = np.deg2rad(degrees)
  rotation = np.eye(4)
  rotation[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
  return rotation @ affine


def _as(volume, codes):
  image = nib.Nifti1Image(volume.array, volume.affine)
  ornt = nib.orientations.axcodes2ornt(codes)
  turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt))
  return Volume(np.asanyarray(turned.dataobj), turned.affine)


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_the_same_mask_from_every_orientation(config, scan, spacing):
  config.data.spacing_mm = spacing
  reference = segment(scan, _Threshold(), config)
  np.testing.assert_array_equal(reference.affine, scan.affine)
  assert reference.array.dtype == np.uint8
  assert 0.02 < reference.array.mean() < 0.5
  for other in (_as(scan, "LPS"), _as(scan, "SRA"), Volume(scan.array, _turned(scan.affine))):
    mask = segment(other, _Threshold(), config)
    assert mask.shape == other.shape
    np.testing.assert_array_equal(mask.affine, other.affine)
    np.testing.assert_array_equal(to_canonical(mask).array, reference.array)


def test_on_the_native_grid_it_is_the_systems_own_answer(config, scan):
  config.data.spacing_mm = 2.0
  isotropic = Volume(scan.array, np.diag([2.0, 2.0, 2.0, 1.0]))
  np.testing.assert_array_equal(segment(isotropic, _Threshold(), config).array, scan.array > 100)
