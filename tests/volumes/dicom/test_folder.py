"""Links, loops, fifos, hidden entries and folders that cannot be listed."""

import errno
import os

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.folder import list_folder
from attn_unet_jax.volumes.dicom.read import read_dicom, survey_files
from tests.written_dicom import slices_of, write

SCAN = Volume(np.arange(80, dtype=np.int16).reshape(5, 4, 4), np.diag([-0.8, -0.7, 2.5, 1]))


@pytest.fixture
def folder(tmp_path):
  write(tmp_path / "scan", slices_of(SCAN), name="IM{k:04d}")
  return tmp_path / "scan"


def read(folder):
  return read_dicom(folder).volume.array


def test_links_to_files_and_folders_are_followed(folder, tmp_path):
  half, links = tmp_path / "half", tmp_path / "links"
  half.mkdir()
  links.mkdir()
  files = sorted(folder.iterdir())
  for file in files[:2]:
    file.rename(half / file.name)
  (links / "half").symlink_to(half)
  for file in files[2:]:
    (links / file.name).symlink_to(file)
  np.testing.assert_array_equal(read(links), SCAN.array)


def test_what_several_links_lead_to_is_read_once(folder):
  (folder / "above").symlink_to(folder.parent)
  (folder / "here").symlink_to(".")
  (folder / "loop").symlink_to("loop")
  (folder / "twice").symlink_to("IM0001")
  os.link(folder / "IM0002", folder / "again")
  np.testing.assert_array_equal(read(folder), SCAN.array)
  skipped = survey_files(folder).skipped
  assert skipped["links to folders listed already"] >= 1
  assert skipped["links to files listed already"] == 2
  assert skipped["link that leads nowhere"] == 1


def test_a_real_folder_keeps_its_path_beside_a_link_to_it(folder):
  (folder.parent / "a_link").symlink_to(folder)
  assert {file.parent for file in list_folder(folder.parent).files} == {folder}


def test_a_slice_behind_a_link_that_leads_nowhere_is_missed(folder):
  last = sorted(folder.iterdir())[-1]
  last.unlink()
  last.symlink_to("elsewhere")
  with pytest.raises(UserError, match=r"IM0003: no DICOM, and called as the slices are"):
    read(folder)


def test_a_fifo_is_refused_and_not_waited_for(folder):
  os.mkfifo(folder / "IM0004")
  with pytest.raises(UserError, match=r"IM0004: neither a file nor a folder but a fifo"):
    read(folder)


def test_a_folder_that_cannot_be_listed_is_refused(folder, monkeypatch):
  (folder / "more").mkdir()
  scandir = os.scandir

  def refuse(path):
    if os.fspath(path).endswith("more"):
      raise PermissionError(errno.EACCES, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(UserError, match=r"more: cannot be listed \(Permission denied\)"):
    read(folder)


def test_a_file_that_may_not_be_read_is_refused(folder, unreadable):
  unreadable(folder / "IM0003")
  with pytest.raises(UserError, match=r"IM0003: cannot be read \(Permission denied\)"):
    read(folder)


def test_files_that_are_no_slices_are_counted(folder):
  for name in ("README", "DICOMDIR", "LICENSE", "Thumbs.db", "index.html", "IM0001.jpg", "md5.txt"):
    (folder / name).write_text("text")
  (folder / ".DS_Store").write_text("")
  (folder / "__MACOSX").mkdir()
  np.testing.assert_array_equal(read(folder), SCAN.array)
  assert survey_files(folder).skipped == {"not DICOM": 7, "hidden": 2}
