import struct
import tracemalloc
import zipfile
import zlib

import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import list_files, open_files


def pack(path, name, content=b"no DICOM", method=zipfile.ZIP_DEFLATED):
  """Writes a zip of one file."""
  with zipfile.ZipFile(path, "w", method) as archive:
    archive.writestr(name, content)
  return path


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
