import json

import pytest

from attn_unet_jax.inference.quality import FEATURES, QualityModel
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.quality_record import read_quality, remove_quality, write_quality

MODEL = QualityModel(tuple(number / 8 for number in range(len(FEATURES))), -0.5, 0.25, 14)


def test_what_was_learnt_is_read_for_its_checkpoint_alone(tmp_path):
  unlearnt = {"liver": QualityModel()}
  assert read_quality(tmp_path, ["liver"], 3) == unlearnt
  write_quality(tmp_path, {"liver": MODEL}, 3)
  assert read_quality(tmp_path, ["liver"], 3) == {"liver": MODEL}
  assert read_quality(tmp_path, ["liver"], 4) == unlearnt
  remove_quality(tmp_path)
  assert read_quality(tmp_path, ["liver"], 3) == unlearnt


@pytest.mark.parametrize(
  "change",
  [{"format": 9}, {"classes": {}}, {"classes": {"liver": {"weights": {}}}}, {"classes": 3}],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change):
  write_quality(tmp_path, {"liver": MODEL}, 3)
  path = tmp_path / "quality.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(UserError, match=r"quality\.json: not what a run learnt .*; remove it"):
    read_quality(tmp_path, ["liver"], 3)
