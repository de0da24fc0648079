import os

import pytest

from attn_unet_jax.runtime import files
from attn_unet_jax.runtime.errors import UserError


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "a.json"
  files.write_text(path, "old")

  def full(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr("pathlib.Path.write_text", full)
  with pytest.raises(OSError, match="disk full"):
    files.write_text(path, "new")
  assert path.read_text() == "old"
  monkeypatch.undo()
  monkeypatch.setattr("pathlib.Path.replace", full)
  with pytest.raises(OSError, match="disk full"):
    files.write_text(path, "new")
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_only_what_is_old_enough_is_removed(tmp_path):
  """Only files named as by `atomic_write`: other hidden files stay."""
  with files.atomic_write(tmp_path / "a.nii.gz") as young:
    young.write_text("")
  for path, age in ((young, 10), (tmp_path / ".b.txt.1.part", 30), (tmp_path / ".b.txt", 30)):
    path.write_text("")
    written = path.stat().st_mtime - age
    os.utime(path, (written, written))
  files.remove_unfinished_files(tmp_path, older_than_s=20)
  assert {path.name for path in tmp_path.iterdir()} == {young.name, ".b.txt", "a.nii.gz"}
  files.remove_unfinished_files(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {".b.txt", "a.nii.gz"}


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
  files.check_writable(tmp_path / "a" / "b")
  assert list(tmp_path.iterdir()) == []
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"file/a/b: cannot be written \(Not a directory\)"):
    files.check_writable(tmp_path / "file" / "a" / "b")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", 100_000 * b'{"a":'])
def test_what_is_no_json_is_named(tmp_path, content):
  path = tmp_path / "a.json"
  path.write_bytes(content)
  with pytest.raises(UserError, match=r"a\.json: not readable as JSON \(.*\); remove it$"):
    files.read_json_object(path, "remove it")
