"""Headers and files that lie, and the harmless oddities of many writers."""

import gzip
import os
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import nifti_header, nifti_voxels
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_grid, read_label, read_nifti, write_nifti
from attn_unet_jax.volumes.scan import read_scan
from tests.drawn_ct import AFFINE, drawn_ct, drawn_label

HU = drawn_ct().array


def pack(array=HU, offset=352, extension=b"\0\0\0\0", kind=nib.Nifti1Header, **fields):
  """The bytes of a NIfTI file whose header has some fields, be they what they may."""
  header = kind()
  header.set_data_dtype(array.dtype)
  header.set_data_shape(array.shape)
  header.set_xyzt_units("mm")
  header.set_sform(AFFINE, 1)
  header.set_qform(AFFINE, 1)
  header["vox_offset"] = offset
  header["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2"
  for name, value in fields.items():
    header[name] = value
  return header.binaryblock + extension + array.tobytes(order="F")


def write(path, content):
  path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
  return path


def extend(*extensions):
  """The offset of the voxels, and what stands before them; each extension by length and content."""
  content = b"".join(np.int32([size, 6]).tobytes() + text for size, text in extensions)
  return {"offset": 352 + len(content), "extension": b"\1\0\0\0" + content}


DAMAGED = {
  "unit code 5": ({"xyzt_units": 5}, "its unit is code 5, which NIfTI does not define"),
  "unit code 7 and a time": ({"xyzt_units": 7 + 8}, "its unit is code 7"),
  "unit metre": ({"xyzt_units": 1}, "its unit is meter, geometry must be in mm"),
  "offset infinite": ({"vox_offset": np.inf}, "its voxels begin at byte inf"),
  "offset NaN": ({"vox_offset": np.nan}, "its voxels begin at byte nan"),
  "offset negative": ({"vox_offset": -352}, "its voxels begin at byte -352"),
  "offset huge": ({"vox_offset": 1e12}, "its voxels begin at byte 1e"),
  "offset inside the header": ({"vox_offset": 100}, "its voxels begin at byte 100"),
  "offset not said": ({"vox_offset": 0}, "its voxels begin at byte 0"),
  "no codes and pixdim NaN": ({"sform_code": 0, "qform_code": 0, "pixdim": np.nan}, ""),
  "no codes and pixdim infinite": (
    {"sform_code": 0, "qform_code": 0, "pixdim": [1, np.inf, 1, 1, 1, 1, 1, 1]},
    "set a valid sform",
  ),
  "sform NaN": ({"srow_x": np.nan}, "set a valid sform"),
  "sform infinite": ({"srow_y": np.inf}, "set a valid sform"),
  "sform flat": ({"srow_z": 0}, "set a valid sform"),
  "qform alone, quaternion NaN": ({"sform_code": 0, "quatern_b": np.nan}, ""),
  "qform alone, quaternion of 9": ({"sform_code": 0, "quatern_c": 9}, ""),
  "qform alone, infinite origin": ({"sform_code": 0, "qoffset_x": np.inf}, ""),
  "slope infinite": ({"scl_slope": np.inf}, "its slope is infinite"),
  "intercept infinite": ({"scl_slope": 1, "scl_inter": np.inf}, ""),
  "intercept NaN": ({"scl_slope": 2, "scl_inter": np.nan}, ""),
  "type of no meaning": ({"datatype": 9999}, ""),
  "complex": ({"datatype": 32, "bitpix": 64}, ""),
  "no axes": ({"dim": [0, 40, 40, 24, 1, 1, 1, 1]}, ""),
  "77 axes": ({"dim": [77, 40, 40, 24, 1, 1, 1, 1]}, ""),
  "negative axis": ({"dim": [3, -40, 40, 24, 1, 1, 1, 1]}, ""),
  "axis of 0": ({"dim": [3, 40, 0, 24, 1, 1, 1, 1]}, ""),
  "7 axes": ({"dim": [7, 40, 40, 24, 2, 1, 1, 1]}, ""),
  "more voxels": ({"dim": [3, 4000, 4000, 4000, 1, 1, 1, 1]}, "truncated or damaged"),
  "magic": ({"magic": b"xyz"}, ""),
  "extension of no length": (extend((0, bytes(24))), "extension at byte 352 .* length of 0"),
  "extension of negative length": (extend((-64, bytes(24))), "length of -64"),
  "extension over the voxels": (extend((1 << 30, bytes(24))), "length of 1073741824"),
  "second extension": (extend((32, bytes(24)), (48, bytes(24))), "at byte 384 .* length of 48"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("fields", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_header_is_refused_by_its_file(tmp_path, fields, words, name):
  path = write(tmp_path / name, pack(**fields))
  for read in (read_nifti, read_label, read_grid):
    with pytest.raises(UserError, match=f"a.nii.*{words}") as refused:
      read(path)
    assert "\n" not in str(refused.value)


ODD = {
  "unit not said": {"xyzt_units": 0},
  "unit of time": {"xyzt_units": 2 + 8},
  "undefined unit of time": {"xyzt_units": 2 + 56},
  "slope 0": {"scl_slope": 0, "scl_inter": 0},
  "slope 0 and an intercept": {"scl_slope": 0, "scl_inter": np.nan},
  "slope NaN": {"scl_slope": np.nan, "scl_inter": np.nan},
  "slope 1": {"scl_slope": 1, "scl_inter": 0},
  "length of the header": {"sizeof_hdr": 347},
  "sform alone": {"qform_code": 0},
  "sform alone, qform damaged": {"qform_code": 0, "quatern_b": np.nan, "qoffset_x": np.inf},
  "sform set, qform's numbers damaged": {"quatern_b": 9},
  "qform alone": {"sform_code": 0},
  "qform alone, sform damaged": {"sform_code": 0, "srow_x": np.nan},
  "codes of a template": {"sform_code": 4, "qform_code": 1},
  "codes unknown": {"sform_code": 5, "qform_code": 1},
  "axes of length one": {"dim": [5, 40, 40, 24, 1, 1, 1, 1]},
  "rest of dim 0": {"dim": [3, 40, 40, 24, 0, 0, 0, 0]},
  "rest of pixdim NaN": {"pixdim": [1, 8, 8, 8, np.nan, 0, -1, np.inf]},
  "display window": {"cal_max": np.inf, "cal_min": np.nan},
  "description": {"descrip": b"\xff\xfe not in any encoding", "aux_file": b"\x1b[31m"},
  "intent": {"intent_code": 9999, "intent_name": b"\xff"},
  "slices": {"slice_code": 77, "slice_start": -5, "dim_info": 255},
  "an extension": extend((32, b"a comment" + bytes(15))),
  "two extensions": extend((16, bytes(8)), (32, b"\xff" * 24)),
  "filling instead of extensions": {"offset": 1024, "extension": bytes(4 + 672)},
  "stored as float64": {"array": HU.astype(np.float64)},
  "stored as int32": {"array": HU.astype(np.int32)},
  "NIfTI-2": {"kind": nib.Nifti2Header, "offset": 544},
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_what_is_only_odd_passes_in_silence(tmp_path, fields, name, caplog, recwarn):
  path = write(tmp_path / name, pack(**fields))
  volume = read_nifti(path)
  assert volume.array.dtype == np.int16
  np.testing.assert_array_equal(volume.array, HU)
  np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
  assert Judge().judge_scan(volume, path, path) == []
  assert (caplog.text, list(recwarn)) == ("", [])


def test_the_other_byte_order_and_bytes_behind_the_voxels_are_no_matter(tmp_path):
  header = nib.Nifti1Header(endianness=">")
  header.set_data_dtype(">i2")
  header.set_sform(AFFINE, 1)
  image = nib.Nifti1Image(HU, None, header)
  image.to_filename(tmp_path / "big.nii.gz")
  write(tmp_path / "long.nii", pack() + bytes(1000))
  write(tmp_path / "long.nii.gz", pack() + bytes(1000))
  two = gzip.compress(pack()[:5000]) + gzip.compress(pack()[5000:])
  (tmp_path / "members.nii.gz").write_bytes(two)
  for path in tmp_path.iterdir():
    np.testing.assert_array_equal(read_nifti(path).array, HU)


def test_a_name_that_contradicts_the_content_says_how_to_rename(tmp_path):
  (tmp_path / "plain.nii.gz").write_bytes(pack())
  (tmp_path / "packed.nii").write_bytes(gzip.compress(pack()))
  with pytest.raises(UserError, match=r"plain.nii.gz: not compressed, .*; rename it to plain.nii$"):
    read_nifti(tmp_path / "plain.nii.gz")
  with pytest.raises(UserError, match=r"packed.nii: compressed .*; rename it to packed.nii.gz$"):
    read_nifti(tmp_path / "packed.nii")


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "x.nii.gz")
  (tmp_path / "zero.nii").symlink_to("/dev/zero")
  nib.Nifti1Pair(HU, AFFINE).to_filename(tmp_path / "pair.img")
  (tmp_path / "pair.img").unlink()
  os.mkfifo(tmp_path / "pair.img")
  for name in ("x.nii.gz", "zero.nii", "pair.hdr", "pair.img"):
    for read in (read_scan, read_label, read_grid):
      with pytest.raises(UserError, match=r"pair|socket or device"):
        read(tmp_path / name)


def test_links_are_followed(tmp_path):
  write(tmp_path / "a.nii.gz", pack())
  (tmp_path / "b.nii.gz").symlink_to("a.nii.gz")
  np.testing.assert_array_equal(read_scan(tmp_path / "b.nii.gz").array, HU)
  (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
  with pytest.raises(UserError, match=r"loop.nii.gz"):
    read_scan(tmp_path / "loop.nii.gz")


def test_what_follows_the_voxels_of_a_gz_is_not_unpacked_without_end(tmp_path, monkeypatch):
  zeros = gzip.compress(bytes(1 << 20), 9)
  path = tmp_path / "a.nii.gz"
  path.write_bytes(gzip.compress(pack()) + zeros * 80)
  start = time.process_time()
  with pytest.raises(UserError, match=r"a.nii.gz: goes on for more than 64 MiB behind the voxels"):
    read_nifti(path)
  assert time.process_time() - start < 5
  monkeypatch.setattr(nifti_voxels, "_MAX_TAIL_BYTES", 100 << 20)
  np.testing.assert_array_equal(read_nifti(path).array, HU)


def test_a_long_header_is_not_unpacked_without_end(tmp_path, monkeypatch):
  monkeypatch.setattr(nifti_header, "_MAX_HEADER_BYTES", 1000)
  path = write(tmp_path / "a.nii.gz", pack(offset=1024, extension=bytes(4 + 672)))
  with pytest.raises(UserError, match=r"its voxels begin at byte 1024"):
    read_nifti(path)


@pytest.mark.parametrize("read", [read_nifti, read_label])
@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_memory_is_asked_for_what_is_held(tmp_path, monkeypatch, read, slope):
  array = (np.arange(100 * 100 * 40).reshape(100, 100, 40) % 200).astype(np.uint8)
  path = write(tmp_path / "a.nii", pack(array, scl_slope=slope, scl_inter=0))
  asked = []
  monkeypatch.setattr(memory, "require_memory", lambda needed, *_: asked.append(needed))
  read(path)  # once before, so that only the arrays of a scan are counted
  tracemalloc.start()
  read(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1.1 * asked[0] + 300_000  # a plane in float64, and what Python holds


def test_scaled_values_are_those_of_nibabel(tmp_path):
  for slope, inter in ((0.5, -1024.0), (2.0, -1024.0), (1.0, 0.3), (1 / 3, 7.0)):
    array = (np.arange(6 * 7 * 8).reshape(6, 7, 8) * 3).astype(np.uint16)
    path = write(tmp_path / "a.nii", pack(array, scl_slope=slope, scl_inter=inter))
    found, expected = read_nifti(path).array, np.asanyarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


def test_a_label_with_a_slope_is_rounded_in_its_smallest_type(tmp_path):
  label = drawn_label().array
  path = write(tmp_path / "a.nii", pack(label * np.uint8(255), scl_slope=1 / 255, scl_inter=0))
  found = read_label(path).array
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, label)


def test_a_mask_is_written_beside_an_odd_scan(tmp_path):
  path = write(tmp_path / "a.nii", pack(quatern_b=9, scl_slope=0, xyzt_units=0))
  volume = read_nifti(path)
  write_nifti(tmp_path / "m.nii.gz", drawn_label(), like=path)
  np.testing.assert_array_equal(read_label(tmp_path / "m.nii.gz").affine, volume.affine)
