import errno
import os

import pytest

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.folders import walk_folders


def test_every_folder_once_in_spite_of_links_and_loops(tmp_path):
  (tmp_path / "b" / "c").mkdir(parents=True)
  (tmp_path / "b" / "c" / "1").write_text("")
  (tmp_path / ".hidden").mkdir()
  (tmp_path / "a").symlink_to(tmp_path / "b")
  (tmp_path / "b" / "loop").symlink_to(tmp_path)
  (tmp_path / "self").symlink_to("self")
  found = list(walk_folders(tmp_path))
  assert [folder for folder, _ in found] == [tmp_path, tmp_path / "b", tmp_path / "b" / "c"]
  assert found[-1][1] == ["1"]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
  (tmp_path / "b").mkdir()
  scandir = os.scandir

  def refuse(path):
    if os.fspath(path).endswith("b"):
      raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(UserError, match=r"/b: cannot be listed \(Permission denied\)"):
    list(walk_folders(tmp_path))
