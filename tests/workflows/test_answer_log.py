"""What tells one scan from another; tests/test_predict.py has the rest, through the command."""

import zipfile

import numpy as np

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.scan import open_scan
from attn_unet_jax.workflows.answer_log import digest_scan
from tests.written_dicom import write_volume

SCAN = Volume(np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3), np.diag([-1.0, -1, 2, 1]))


def test_two_series_of_a_zip_are_two_scans(tmp_path):
  path = tmp_path / "study.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for name, uid in (("a", "1.1"), ("b", "1.2")):
      for file in write_volume(tmp_path / name, SCAN, uid=uid):
        archive.write(file, f"{name}/{file.name}")
  one, other = (digest_scan(open_scan(path, series_uid=uid)) for uid in ("1.1", "1.2"))
  assert one.content != other.content
  assert digest_scan(open_scan(path, series_uid="1.1")) == one
