"""Estimates of several kinds of scans are ranked by kind and together."""

import pytest

from attn_unet_jax.runtime.errors import UserError
from benchmarks.quality_tables import rank_tables


def test_kinds_are_ranked_alone_and_together(tmp_path):
  """Cases of two kinds that are called alike are two."""
  folders = {}
  for kind, pairs in (("slabs", [(0.1, 0.2), (0.2, 0.3), (0.3, 0.1)]), ("phantoms", [(0.8, 0.9)])):
    folders[kind] = tmp_path / kind / "evaluation" / "set"
    folders[kind].mkdir(parents=True)
    lines = [f"{case},pancreas,{expected},{dsc}" for case, (expected, dsc) in enumerate(pairs)]
    text = "\n".join(["case,class,expected_dsc,dsc", *lines, "9,pancreas,0.5,nan", ""])
    (folders[kind] / "quality.csv").write_text(text)
  found = rank_tables({kind: tmp_path / kind for kind in folders})
  assert found["slabs"]["pancreas"]["spearman"] == pytest.approx(-0.5)
  assert found["phantoms"]["pancreas"] == {
    "cases": 1,
    "spearman": None,
    "mean_difference": pytest.approx(0.1),
  }
  # Ranks 1, 2, 3, 4 and 2, 3, 1, 4: 1 - 6 * 6 / 60.
  assert found["all"]["pancreas"]["cases"] == 4
  assert found["all"]["pancreas"]["spearman"] == pytest.approx(0.4)
  with pytest.raises(UserError, match=r"--tables=all=.*: has 2 quality\.csv, not one"):
    rank_tables({"all": tmp_path})
