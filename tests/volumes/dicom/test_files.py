import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.files import list_files, open_files
from attn_unet_jax.volumes.scan import find_dicom_scans, open_scan
from tests.written_dicom import write_volume

SCAN = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-0.8, -0.7, 2.5, 1]))
NAMES = {
  "a dot": ".",
  "dots": "./.",
  # Longer than a file system takes, and called like a zip.
  "a long name": "a" * 5000 + ".zip/x.dcm",
}


def pack(path, name, content=b"no DICOM", method=zipfile.ZIP_DEFLATED):
  """Writes a zip of one file."""
  with zipfile.ZipFile(path, "w", method) as archive:
    archive.writestr(name, content)
  return path


def replace(path, old, new):
  """Changes the bytes of a name, in the directory and before the file."""
  data = path.read_bytes()
  assert data.count(old) == 2
  path.write_bytes(data.replace(old, new))


def promise(path, content):
  """Lies in the directory and before the file: it would unpack to this content."""
  data = bytearray(path.read_bytes())
  for at in (14, data.rfind(b"PK\x01\x02") + 16):  # each: checksum, packed size, size
    struct.pack_into("<I", data, at, zlib.crc32(content))
    struct.pack_into("<I", data, at + 8, len(content))
  path.write_bytes(data)


def test_a_lying_zip_unpacks_no_more_than_it_promises(tmp_path):
  """A hundred bytes, of which as many more follow as a bomb has."""
  path = pack(tmp_path / "x.zip", "1", bytes(64 << 20))
  promise(path, bytes(100))
  tracemalloc.start()
  try:
    ((_, stream),) = open_files(list_files(path).files)
    assert stream.closed
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_a_limit_is_refused(method, tmp_path):
  path = pack(tmp_path / "x.zip", "1", method=method)
  message = f"x.zip: its member 1 is packed by method {method}, and only deflate is read; unpack"
  with pytest.raises(UserError, match=message):
    list_files(path)


def write_odd_zip(kind, path):
  """Writes a zip that a program of another mind, or an attacker, could write."""
  if kind == "not UTF-8":
    replace(pack(path, "ä.dcm"), "ä".encode(), b"\xff\xfe")
  elif kind == "not UTF-8 before the file alone":
    data = pack(path, "ä.dcm").read_bytes()
    path.write_bytes(data.replace("ä".encode(), b"\xff\xfe", 1))
  elif kind == "NUL":
    replace(pack(path, "ab"), b"ab", b"\0b")
  elif kind == "damaged LZMA":
    data = bytearray(pack(path, "1", method=zipfile.ZIP_LZMA).read_bytes())
    data[35] ^= 255
    path.write_bytes(data)
  else:
    pack(path, NAMES[kind])


@pytest.mark.parametrize(
  ("kind", "complaint"),
  [
    ("not UTF-8", "not a readable zip"),
    ("not UTF-8 before the file alone", "damaged in the zip"),
    ("NUL", "its member '' has no name"),
    ("a dot", "its member '.' has no name"),
    ("dots", "its member './.' has no name"),
    ("a long name", "does not begin as DICOM does"),
    ("damaged LZMA", "packed by method 14"),
  ],
)
def test_an_odd_zip_is_refused_and_the_scans_beside_it_are_read(kind, complaint, tmp_path):
  path = tmp_path / "odd.zip"
  write_odd_zip(kind, path)
  with pytest.raises(UserError, match=complaint):
    open_scan(path).read()
  write_volume(tmp_path / "whole", SCAN)
  scans = find_dicom_scans(tmp_path).scans
  np.testing.assert_array_equal(open_scan(scans["whole"].path).read().array, SCAN.array)
