"""The image is built from what .dockerignore lets through: that must be enough to install."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_the_image_gets_installs_program_and_experiments(tmp_path):
  context = tmp_path / "context"
  context.mkdir()
  for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
    if line.startswith("!"):
      path = ROOT / line.removeprefix("!")
      copy = shutil.copytree if path.is_dir() else shutil.copy
      copy(path, context / path.name)
  build = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
  done = subprocess.run(
    [*build, f"--wheel-dir={tmp_path}", str(context)], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  (wheel,) = tmp_path.glob("*.whl")
  with zipfile.ZipFile(wheel) as packed:
    names = packed.namelist()
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    assert "Requires-Dist: jax" in packed.read(metadata).decode()
  assert "attn_unet_jax/experiments/pancreas.py" in names
  assert "attn_unet_jax/builtin/pancreas/parameters.npz" in names
