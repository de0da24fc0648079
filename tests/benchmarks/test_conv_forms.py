"""The benchmark of the convolution's forms: all compute the same, and each has its row."""

import json

import numpy as np
import pytest

from benchmarks.conv_works import works
from tests.conftest import draw, run_command


def test_all_forms_compute_the_same():
  x, kernel, g = draw(1, 4, 4, 8, 2), draw(3, 3, 3, 2, 3, seed=1), draw(1, 4, 4, 8, 3, seed=2)
  own, packed = (works(x, kernel, g, voxels) for voxels in (1, 4))
  assert set(own) == {"forward", "input_gradient", "kernel_gradient"}
  for name, work in own.items():
    np.testing.assert_allclose(packed[name](), work(), atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_every_shape_has_its_rows(tmp_path):
  output = tmp_path / "forms.json"
  flags = ["--shrink=20", "--batch=1", "--repeats=1", "--calls=1", "--voxels=1,2"]
  done = run_command("benchmarks.conv_forms", *flags, f"--output={output}")
  assert done.returncode == 0, done.stderr
  rows = json.loads(output.read_text())["convolutions"]
  assert [row["voxels"] for row in rows] == [1, 2] * 6 + [1]  # 24 // 20 voxels leave none to pack
  assert all(row[key] > 0 for row in rows for key in row if key.endswith("_ms"))
  assert "input_gradient_ms" not in rows[0]  # nobody wants the image's own
