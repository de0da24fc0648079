from attn_unet_jax.inspection.sources import list_cases_at


def test_an_image_that_is_called_after_a_channel_is_explained(tmp_path):
  for path in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_bytes(b"")
  findings = list_cases_at(tmp_path).findings
  assert [one.kind for one in findings] == ["partner", "partner"]
  assert sum("rename a_0000 to a" in one.text for one in findings) == 1
