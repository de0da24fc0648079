"""Checks that the narrowest limit above a process is found."""

import psutil
import pytest

from attn_unet_jax.runtime import memory


@pytest.mark.parametrize(
  ("own", "file"),
  [
    (
      "0::/system.slice/slurmstepd.scope/job_7/step_0\n",
      "system.slice/slurmstepd.scope/memory.max",
    ),
    ("0::/system.slice/slurmstepd.scope/job_7/step_0\n", "memory.max"),  # the container's
    ("5:cpu:/a\n4:cpuset,memory:/slurm/job_7\n0::/\n", "memory/slurm/memory.limit_in_bytes"),
  ],
)
def test_a_limit_of_any_control_group_above_counts(monkeypatch, tmp_path, own, file):
  (tmp_path / "own").write_text(own)
  monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")
  monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
  limit = tmp_path / file
  limit.parent.mkdir(parents=True, exist_ok=True)
  for text, most in (("max\n", psutil.virtual_memory().total), ("1000\n", 1000)):
    limit.write_text(text)
    assert memory.host_bytes() == most
