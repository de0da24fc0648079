"""No command has a flag that it does not read."""

import re
from pathlib import Path

import pytest

import attn_unet_jax
import tfds_pancreas

COMMANDS = sorted(
  path
  for package in (attn_unet_jax, tfds_pancreas)
  for path in Path(package.__file__).parent.glob("*.py")
  if "flags.DEFINE_" in path.read_text()
)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_flag_is_read(path):
  text = path.read_text()
  names = re.findall(r"^(_\w+) = flags\.DEFINE_", text, re.MULTILINE)
  assert names
  assert [name for name in names if f"{name}.value" not in text] == []
