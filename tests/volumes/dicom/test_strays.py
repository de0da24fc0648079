"""Files among slices that are no DICOM: harmless by their names, or slices that were lost."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from attn_unet_jax.volumes.dicom.signature import is_bare_dicom
from attn_unet_jax.volumes.dicom.strays import find_lost_slices
from tests.written_dicom import slices_of, write

SCAN = Volume(np.arange(80, dtype=np.int16).reshape(5, 4, 4), np.diag([-0.8, -0.7, 2.5, 1]))


def remove_preamble(path, *, implicit=True, little=True):
  plain = Dataset()
  for element in pydicom.dcmread(path):
    plain.add(element)
  stream = DicomBytesIO()
  stream.is_little_endian, stream.is_implicit_VR = little, implicit
  write_dataset(stream, plain)
  path.write_bytes(stream.getvalue())


def keep_meta(path):
  path.write_bytes(path.read_bytes()[132:])


def empty(path):
  path.write_bytes(b"")


def fail_download(path):
  path.write_text("<html>401 Unauthorized</html>")


def load_half(path):
  path.with_name(f"{path.name}.part").write_bytes(path.read_bytes()[:100])
  path.unlink()


@pytest.mark.parametrize("name", ["IM{k:04d}", "{k:03d}.dcm", "{k}", "1.2.840.{k}", "a{k}f09e2"])
@pytest.mark.parametrize("spoil", [remove_preamble, empty, fail_download, load_half])
def test_a_last_slice_that_is_no_dicom_is_refused(name, spoil, tmp_path):
  spoil(write(tmp_path, slices_of(SCAN), name=name)[-1])
  with pytest.raises(UserError, match=r"no DICOM, and called as|truncated or damaged|preamble"):
    read_dicom(tmp_path)


@pytest.mark.parametrize("name", ["{k}.dcm", "IM{k}"])
@pytest.mark.parametrize(
  "spoil",
  [
    remove_preamble,
    lambda path: remove_preamble(path, implicit=False),
    lambda path: remove_preamble(path, implicit=False, little=False),
    keep_meta,
    lambda path: path.write_bytes(path.read_bytes()[128:]),
  ],
)
def test_a_series_without_preamble_is_called_so(name, spoil, tmp_path):
  for file in write(tmp_path, slices_of(SCAN), name=name):
    spoil(file)
  with pytest.raises(UserError, match=r"DICOM without its preamble .*dcmconv.*\(and 3 more"):
    read_dicom(tmp_path)


def test_a_folder_whose_slices_are_all_lost_is_missed(tmp_path):
  files = write(tmp_path / "a", slices_of(SCAN), name="IM{k:04d}")
  (tmp_path / "b").mkdir()
  for file in files[2:]:
    (tmp_path / "b" / file.name).write_bytes(b"")
    file.unlink()
  with pytest.raises(UserError, match=r"IM0002: no DICOM"):
    read_dicom(tmp_path)


@pytest.mark.parametrize(
  ("slices", "other", "lost"),
  [
    (["IM0001", "IM0002"], "IM0003", True),
    (["IM0001", "IM0002"], "im3", True),
    (["IM0001"], "IM0003.part", True),
    (["IM0001"], "IM0001.part", False),
    (["1.dcm"], "2", True),
    (["1.dcm"], "2.dcm.gz", True),
    (["1.dcm"], "1.dcm.json", False),
    (["1.dcm"], "2.txt", False),
    (["1-001.dcm"], "1-002", True),
    (["CT.1.2.840.1"], "CT.1.2.840.22", True),
    (["CT.1.2.840.1"], "CT.md5", False),
    (["IM0001"], "README", False),
    (["IM0001"], "DICOMDIR", False),
    (["IM0001"], "IM0001.png", False),
    (["I1"], "IMPORTANT", False),
  ],
)
def test_names_tell_slices_from_other_files(slices, other, lost):
  found = find_lost_slices([Path("f", other)], [Path("f", name) for name in slices])
  assert bool(found) == lost


def test_numbers_alone_mean_little_in_another_folder():
  assert not find_lost_slices([Path("viewer/17")], [Path("series/1"), Path("series/2")])


@pytest.mark.parametrize(
  "data",
  [
    b"\x08\0\0\0\x0c\0\0\0" + bytes(100),  # an array of int32: 8, 12, 0, ...
    b"\x02\0\0\0\x04\0\0\0" + bytes(100),
    b"\x08\0",
    b"text",
    b"",
  ],
)
def test_other_binary_files_are_no_dicom_without_preamble(data):
  assert not is_bare_dicom(io.BytesIO(data))
