import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.arrayproxy import ArrayProxy

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.checks import check_image, check_pair
from attn_unet_jax.volumes.nifti import (
  read_grid,
  read_label,
  read_nifti,
  write_nifti,
  write_shares,
)
from attn_unet_jax.volumes.orientation import from_canonical, to_canonical

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = [
  "ct_nifti_3mm/ct.nii.gz",
  "ct_nifti_3mm/labels_104.nii.gz",
  "ct_nifti_3mm/pancreas.nii.gz",
  "ct_spleen/sub-spleen2_ct.nii.gz",
  "ct_spleen/sub-spleen2_ct_seg-manual.nii.gz",
  "mask_pairs/reference/040.nii.gz",
  "multiorgan_labels/case88.nii.gz",
]
OBLIQUE = np.array(
  [
    [0.78 * np.cos(0.2), -0.78 * np.sin(0.2), 0, -123.4],
    [0.78 * np.sin(0.2), 0.78 * np.cos(0.2), 0, 56.7],
    [0, 0, 2.5, -890.1],
    [0, 0, 0, 1],
  ]
)


def find_real_file(name):
  path = DATA / name
  if not path.exists():
    pytest.skip(f"real data {path} is absent")
  return path


def make_values(dtype=np.int16, shape=(5, 6, 7)):
  return (np.arange(np.prod(shape)).reshape(shape) % 100).astype(dtype)


def write_with_nibabel(path, array, affine=OBLIQUE, sform=2, qform=1, **fields):
  """Writes a NIfTI file with nibabel alone."""
  header = nib.Nifti1Header()
  header.set_data_dtype(array.dtype)
  header.set_sform(affine, sform)
  header.set_qform(affine, qform)
  for field, value in fields.items():
    header[field] = value
  nib.Nifti1Image(array, None, header).to_filename(path)
  return path


def read_header(path):
  return nib.load(path).header


@pytest.mark.parametrize("dtype", [np.dtype(code).name for code in "bBhHiIqQfd"])
def test_reads_every_type(tmp_path, dtype):
  path = write_with_nibabel(tmp_path / "a.nii.gz", make_values(dtype))
  volume = read_nifti(path)
  assert volume.array.dtype == np.int16
  np.testing.assert_array_equal(volume.array, make_values())
  np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6, atol=1e-5)
  label = read_label(path)
  assert label.array.dtype == np.uint8
  np.testing.assert_array_equal(label.array, make_values())


def test_fractions_and_large_values_are_read_as_float32(tmp_path):
  array = make_values(np.float64) + 0.25
  np.testing.assert_array_equal(
    read_nifti(write_with_nibabel(tmp_path / "a.nii", array)).array, array
  )
  large = make_values(np.int32) + 40000
  volume = read_nifti(write_with_nibabel(tmp_path / "b.nii", large))
  assert volume.array.dtype == np.float32
  np.testing.assert_array_equal(volume.array, large)


def test_slope_and_intercept_are_applied(tmp_path):
  path = write_with_nibabel(tmp_path / "a.nii", make_values())
  raw = bytearray(path.read_bytes())
  raw[112:120] = np.array([2.0, -1024.0], "<f4").tobytes()  # scl_slope, scl_inter
  path.write_bytes(raw)
  volume = read_nifti(path)
  assert volume.array.dtype == np.int16
  np.testing.assert_array_equal(volume.array, make_values() * 2 - 1024)


@pytest.mark.parametrize("name", ["a.hdr.gz", "a.img.gz"])
def test_a_packed_pair_is_read_to_its_end(tmp_path, name):
  pair = nib.Nifti1Pair(make_values(), OBLIQUE)
  pair.header.set_slope_inter(2, -10)
  pair.to_filename(tmp_path / "a.img.gz")
  np.testing.assert_array_equal(read_nifti(tmp_path / name).array, make_values() * 2 - 10)
  content = bytearray((tmp_path / "a.img.gz").read_bytes())
  content[-8] ^= 1  # of the checksum
  (tmp_path / "a.img.gz").write_bytes(content)
  with pytest.raises(UserError, match=rf"{name}: cannot be read, it is truncated or damaged .*CRC"):
    read_nifti(tmp_path / name)


def test_a_label_that_a_slope_put_beside_a_whole_number_is_read(tmp_path):
  array = np.zeros((4, 4, 4), np.float32)
  array[1], array[2] = 1.0000004, 0.9999996
  assert set(np.unique(read_label(write_with_nibabel(tmp_path / "a.nii", array)).array)) == {0, 1}


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (-1, np.int16), (70000, np.int32)])
def test_labels_are_read_in_the_smallest_type(tmp_path, value, dtype):
  array = np.zeros((4, 4, 4))
  array[0, 0, 0] = value
  label = read_label(write_with_nibabel(tmp_path / "a.nii", array)).array
  assert label.dtype == dtype
  np.testing.assert_array_equal(label, array)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_a_label_must_be_whole(tmp_path, value):
  array = np.ones((4, 4, 4))
  array[2, 2, 2] = value
  path = write_with_nibabel(tmp_path / "lab.nii.gz", array)
  with pytest.raises(UserError, match=rf"lab.nii.gz: values {value:g} are not whole numbers"):
    read_label(path)


def test_an_image_given_as_label_shows_some_values(tmp_path):
  path = write_with_nibabel(tmp_path / "lab.nii", np.linspace(0, 1, 64).reshape(4, 4, 4) + 0.1)
  with pytest.raises(UserError, match=r"values 0.1, 0.11.*, \.\.\. are not whole"):
    read_label(path)


def test_a_label_beyond_32_bits_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"renumber"):
    read_label(write_with_nibabel(tmp_path / "lab.nii", np.full((3, 3, 3), 5e9)))


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
  path = write_with_nibabel(tmp_path / "a.nii.gz", make_values()[..., None])
  np.testing.assert_array_equal(read_nifti(path).array, make_values())


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7, 2)])
def test_other_than_three_axes_are_refused(tmp_path, shape):
  with pytest.raises(UserError, match=r"a.nii: shape .* must be 3-D"):
    read_nifti(write_with_nibabel(tmp_path / "a.nii", make_values(shape=shape)))


def test_missing_folder_and_foreign_files(tmp_path):
  with pytest.raises(UserError, match=r"no such file"):
    read_nifti(tmp_path / "none.nii.gz")
  with pytest.raises(UserError, match=r"a folder"):
    read_nifti(tmp_path)
  for name in ("text.nii", "text.nii.gz", "text.txt", "empty.nii", "empty.nii.gz"):
    path = tmp_path / name
    path.write_text("not a scan " * 100 if "text" in name else "")
    with pytest.raises(UserError, match=name) as caught:
      read_nifti(path)
    assert "\n" not in str(caught.value)
  nib.MGHImage(make_values(np.float32), OBLIQUE).to_filename(tmp_path / "a.mgz")
  with pytest.raises(UserError, match=r"not NIfTI"):
    read_nifti(tmp_path / "a.mgz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, unreadable, name):
  unreadable(write_with_nibabel(tmp_path / name, make_values(np.uint8)))
  with pytest.raises(UserError, match=rf"{name}: cannot be read \(Permission denied\)"):
    read_label(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated(tmp_path, name, share):
  array = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20), dtype=np.int16)
  path = write_with_nibabel(tmp_path / name, array)
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  with pytest.raises(UserError, match=name):
    read_nifti(path)


@pytest.mark.parametrize("read", [read_nifti, read_label, read_grid])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
def test_a_header_that_promises_more_than_its_file_holds(tmp_path, name, read):
  path = tmp_path / name
  kind = nib.Nifti1Pair if name == "a.img" else nib.Nifti1Image
  kind(make_values(), OBLIQUE).to_filename(path)
  header = path.with_suffix(".hdr") if name == "a.img" else path
  opened = gzip.open if path.suffix == ".gz" else open
  with opened(header, "rb") as stream:
    raw = bytearray(stream.read())
  raw[42:48] = np.array([32000] * 3, "<i2").tobytes()  # dim[1:4]
  with opened(header, "wb") as stream:
    stream.write(raw)
  with pytest.raises(UserError, match=f"{name}: its header says 32000 x 32000 x 32000 voxels"):
    read(path)


def test_what_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
  path = write_with_nibabel(tmp_path / "a.nii", make_values())
  monkeypatch.setattr(memory, "host_bytes", lambda: make_values().nbytes)
  assert read_nifti(path).shape == make_values().shape
  monkeypatch.setattr(memory, "host_bytes", lambda: make_values().nbytes - 1)
  with pytest.raises(UserError, match=r"a.nii: its 5 x 6 x 7 voxels take .* GiB, and the memory"):
    read_nifti(path)


def test_memory_that_ends_while_a_file_is_read_names_the_file(tmp_path, monkeypatch):
  def exhausted(*_, **__):
    raise MemoryError

  path = write_with_nibabel(tmp_path / "a.nii", make_values())
  monkeypatch.setattr(ArrayProxy, "get_unscaled", exhausted)
  with pytest.raises(UserError, match=r"a.nii: does not fit into the free memory"):
    read_nifti(path)


@pytest.mark.parametrize(("place", "value"), [(70, 9999), (40, 77)], ids=["datatype", "dim[0]"])
def test_the_reader_says_nothing_beside_what_is_raised(tmp_path, caplog, place, value):
  path = write_with_nibabel(tmp_path / "a.nii", make_values())
  raw = bytearray(path.read_bytes())
  raw[place : place + 2] = np.array(value, "<i2").tobytes()
  path.write_bytes(raw)
  with pytest.raises(UserError, match=r"a.nii: not a readable NIfTI file"):
    read_nifti(path)
  assert caplog.text == ""


def test_damaged_gz(tmp_path):
  array = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20), dtype=np.int16)
  path = write_with_nibabel(tmp_path / "a.nii.gz", array)
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2 : len(raw) // 2 + 40] = bytes(40)
  path.write_bytes(raw)
  with pytest.raises(UserError, match=r"a.nii.gz"):
    read_nifti(path)


def test_unusable_geometry(tmp_path):
  path = write_with_nibabel(tmp_path / "flat.nii", make_values(), sform=2, srow_x=[0, 0, 0, 0])
  with pytest.raises(UserError, match=r"flat.nii: .*set a valid sform"):
    read_nifti(path)
  path = write_with_nibabel(tmp_path / "micron.nii", make_values(), xyzt_units=3)
  with pytest.raises(UserError, match=r"unit is micron"):
    read_nifti(path)


def test_colours_are_refused(tmp_path):
  colours = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
  with pytest.raises(UserError, match=r"must hold integers or floats"):
    read_nifti(write_with_nibabel(tmp_path / "rgb.nii", colours))


def test_a_mask_of_a_scan_without_an_affine_has_its_guess(tmp_path):
  path = write_with_nibabel(tmp_path / "a.nii", make_values(), sform=0, qform=0)
  volume = read_nifti(path)
  assert volume.orientation == "LAS"
  write_nifti(tmp_path / "b.nii", volume, like=path)
  np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii").affine, volume.affine)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_write_then_read(tmp_path, name, dtype):
  volume = Volume(make_values(dtype), OBLIQUE)
  write_nifti(tmp_path / name, volume)
  stored = nib.load(tmp_path / name)
  assert stored.get_data_dtype() == dtype
  assert stored.header.get_xyzt_units()[0] == "mm"
  assert (int(stored.header["sform_code"]), int(stored.header["qform_code"])) == (1, 1)
  np.testing.assert_array_equal(np.asanyarray(stored.dataobj), volume.array)
  np.testing.assert_allclose(stored.get_sform(), OBLIQUE, rtol=1e-7, atol=1e-5)
  np.testing.assert_allclose(stored.get_qform(), OBLIQUE, rtol=1e-6, atol=1e-5)
  np.testing.assert_allclose(read_nifti(tmp_path / name).affine, OBLIQUE, rtol=1e-7, atol=1e-5)
  assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
  ("given", "stored"),
  [("bool", "uint8"), ("int32", "uint8"), ("int8", "uint8"), ("float64", "float32")],
)
def test_other_types_are_stored_in_one_that_holds_them(tmp_path, given, stored):
  array = make_values() % 2
  write_nifti(tmp_path / "a.nii", Volume(array.astype(given), OBLIQUE))
  assert read_header(tmp_path / "a.nii").get_data_dtype() == stored
  np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").array, array)


def test_integers_that_fit_nothing_are_a_programming_error(tmp_path):
  with pytest.raises(ValueError, match=r"do not fit"):
    write_nifti(tmp_path / "a.nii", Volume(make_values(np.int32) + 40000, OBLIQUE))


@pytest.mark.parametrize(("sform", "qform"), [(2, 1), (1, 0), (0, 1), (4, 3), (0, 0)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_has_exactly_the_geometry_of_its_input(tmp_path, sform, qform, kind):
  # The two forms differ here, as they do in files that were registered.
  header = kind.header_class()
  moved = OBLIQUE.copy()
  moved[:3, 3] += (1, 2, 3)
  header.set_sform(OBLIQUE, sform)
  header.set_qform(moved, qform)
  header.set_data_dtype(np.int16)
  header["cal_max"] = 400
  like = tmp_path / "ct.nii.gz"
  kind(make_values(), None, header).to_filename(like)

  volume = read_nifti(like)
  mask = from_canonical(to_canonical(volume).array > 50, volume.grid)
  write_nifti(tmp_path / "mask.nii.gz", mask, like=like)
  before, after = read_header(like), read_header(tmp_path / "mask.nii.gz")
  for field in ("sform_code", "srow_x", "srow_z", "qform_code", "quatern_d", "qoffset_z"):
    np.testing.assert_array_equal(before[field], after[field])
  np.testing.assert_array_equal(before.get_sform(), after.get_sform())
  np.testing.assert_array_equal(before.get_qform(), after.get_qform())
  np.testing.assert_array_equal(before.get_best_affine(), after.get_best_affine())
  assert after["cal_max"] == 0  # a display window for HU is none for a mask
  np.testing.assert_array_equal(read_label(tmp_path / "mask.nii.gz").array, make_values() > 50)


@pytest.mark.parametrize("drift", [0.0125, 0.8], ids=["drifting slices", "a tilted gantry"])
@pytest.mark.parametrize("turn", [np.eye(4), np.diag([-1.0, 1, 1, 1])], ids=["RAS", "mirrored"])
def test_beside_a_sheared_sform_stands_a_qform(tmp_path, drift, turn):
  # ITK opens no file whose only affine shears. It takes X and Y of a series from its slices, and
  # stacks them straight from the first.
  sheared = OBLIQUE @ turn
  sheared[:3, 2] += drift * sheared[:3, 1] / 0.78
  write_nifti(tmp_path / "a.nii", Volume(make_values(), sheared))
  header = read_header(tmp_path / "a.nii")
  assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
  qform = header.get_qform()
  np.testing.assert_allclose(qform[:3, [0, 1, 3]], sheared[:3, [0, 1, 3]], rtol=1e-5, atol=1e-4)
  straight = qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)
  np.testing.assert_allclose(straight.T @ straight, np.eye(3), atol=1e-6)
  assert np.linalg.norm(qform[:3, 2]) == pytest.approx(np.linalg.norm(sheared[:3, 2]), rel=1e-6)
  np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, sheared, rtol=1e-6)


def test_another_grid_than_like_is_a_programming_error(tmp_path):
  like = write_with_nibabel(tmp_path / "ct.nii", make_values())
  with pytest.raises(ValueError, match=r"not on the grid of .*ct.nii"):
    write_nifti(tmp_path / "a.nii", Volume(make_values(), np.eye(4)), like=like)


def test_equal_volumes_give_equal_files(tmp_path):
  for name in ("a.nii.gz", "b.nii.gz"):
    write_nifti(tmp_path / name, Volume(make_values(), OBLIQUE))
  assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
  assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[344:347] == b"n+1"


def test_paths_that_cannot_be_written(tmp_path):
  volume = Volume(make_values(), OBLIQUE)
  (tmp_path / "file").write_text("")
  (tmp_path / "taken.nii").mkdir()
  with pytest.raises(UserError, match=r"file/a.nii: cannot be written \(.+\)"):
    write_nifti(tmp_path / "file" / "a.nii", volume)
  with pytest.raises(UserError, match=r"taken.nii: cannot be written"):
    write_nifti(tmp_path / "taken.nii", volume)
  with pytest.raises(UserError, match=r"ends in .nii or .nii.gz"):
    write_nifti(tmp_path / "a.mha", volume)
  assert sorted(os.listdir(tmp_path)) == ["file", "taken.nii"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "a.nii.gz"
  write_nifti(path, Volume(make_values(), OBLIQUE))
  old = path.read_bytes()

  def disk_full(self, stream):
    stream.write(b"half a header")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(nib.Nifti1Image, "to_stream", disk_full)
  with pytest.raises(UserError, match=r"a.nii.gz: cannot be written \(No space left on device\)"):
    write_nifti(path, Volume(make_values() + 1, OBLIQUE))
  assert path.read_bytes() == old
  assert os.listdir(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_survive_canonical_and_back(tmp_path, name):
  path = find_real_file(name)
  volume = read_nifti(path)
  stored = nib.load(path)
  np.testing.assert_array_equal(volume.array, np.asanyarray(stored.dataobj))
  np.testing.assert_array_equal(volume.affine, stored.affine)
  back = from_canonical(to_canonical(volume).array, volume.grid)
  write_nifti(tmp_path / "again.nii.gz", back, like=path)
  again = read_nifti(tmp_path / "again.nii.gz")
  np.testing.assert_array_equal(again.array, volume.array)
  np.testing.assert_array_equal(again.affine, volume.affine)
  for field in ("sform_code", "qform_code"):
    assert read_header(tmp_path / "again.nii.gz")[field] == read_header(path)[field]


def test_real_ct_and_label_are_a_pair():
  path, label_path = find_real_file(REAL[0]), find_real_file(REAL[2])
  image, label = read_nifti(path), read_label(label_path)
  check_image(image, path)
  assert check_pair(image.grid, label.grid, (path, label_path)) is None
  assert image.array.dtype == np.int16
  assert (image.array.min(), image.array.max()) == (-1207, 3382)
  assert label.array.sum() == 818


def test_the_real_pair_with_two_spacings_is_refused():
  paths = [find_real_file(f"mask_pairs/{kind}/466.nii.gz") for kind in ("reference", "prediction")]
  grids = [read_label(path).grid for path in paths]
  with pytest.raises(UserError, match=r"2.0\) and .*1.0\) mm"):
    check_pair(*grids, tuple(paths))


def test_shares_are_read_by_others_as_fractions_on_the_grid_of_their_scan(tmp_path):
  affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])
  write_nifti(tmp_path / "scan.nii", Volume(np.zeros((3, 4, 5), np.int16), affine))
  shares = np.arange(120, dtype=np.uint16).reshape(3, 4, 5, 2) * 550
  for name, like in (("a.nii.gz", tmp_path / "scan.nii"), ("b.nii", None)):
    grid = Volume(shares[..., 0], affine).grid
    write_shares(tmp_path / name, shares, grid, ["background", "organ"], like=like)
    image = nib.load(tmp_path / name)
    np.testing.assert_allclose(image.get_fdata(), shares / 65535, rtol=1e-6)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj.get_unscaled()), shares)
    np.testing.assert_allclose(image.affine, affine)
    assert image.header.get_xyzt_units()[0] == "mm"
    (extension,) = image.header.extensions
    assert json.loads(extension.text) == {"maps": ["background", "organ"]}
