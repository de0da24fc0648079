import numpy as np
import pytest

from attn_unet_jax.inspection.sources import list_cases_at
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from tests.written_dicom import write_volume


def test_an_image_that_is_called_after_a_channel_is_explained(tmp_path):
  for path in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_bytes(b"")
  findings = list_cases_at(tmp_path).findings
  assert [one.kind for one in findings] == ["partner", "partner"]
  assert sum("rename a_0000 to a" in one.text for one in findings) == 1


def test_a_nifti_file_beside_dicom_of_its_name_is_named_and_both_are_listed(tmp_path):
  write_volume(tmp_path / "a", Volume(np.zeros((2, 2, 3), np.int16), np.eye(4)))
  (tmp_path / "a.nii").write_bytes(b"broken")
  found = list_cases_at(tmp_path)
  assert [(one.severity, one.kind) for one in found.findings] == [("error", "two_files")]
  assert f"{tmp_path}/a.nii: {tmp_path}/a has the same name" in found.findings[0].text
  file, dicom = (case.image for case in found.subjects)
  with pytest.raises(UserError, match=r"a\.nii"):
    file.read()
  assert dicom.read().shape == (2, 2, 3)


def test_names_that_are_not_utf_8_are_named_in_a_training_folder(tmp_path):
  for folder in ("imagesTr", "labelsTr"):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "caf\udce9.nii").write_bytes(b"")
  findings = list_cases_at(tmp_path).findings
  assert [(one.severity, one.kind) for one in findings] == [("error", "file_name")] * 2
  assert "labelsTr/caf\udce9.nii: its name is not UTF-8" in findings[1].text
  assert not list_cases_at(tmp_path / "imagesTr").findings  # which `predict` segments
