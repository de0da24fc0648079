"""Checks that the narrowest limit above a process is found."""

from types import SimpleNamespace

import psutil
import pytest

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError


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


@pytest.mark.parametrize(
  ("own", "limit", "use", "stat"),
  [
    ("0::/job\n", "memory.max", "memory.current", "anon 500\ninactive_file 100\nactive_file 50\n"),
    (
      "4:memory:/job\n",
      "memory/job/memory.limit_in_bytes",
      "memory/job/memory.usage_in_bytes",
      "active_file 1\ntotal_inactive_file 100\ntotal_active_file 50\n",
    ),
  ],
)
def test_what_a_group_holds_is_not_free_but_its_cached_files_are(
  monkeypatch, tmp_path, own, limit, use, stat
):
  (tmp_path / "own").write_text(own)
  monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")
  monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
  for file, text in ((limit, "1000\n"), (use, "700\n")):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
  (tmp_path / use).with_name("memory.stat").write_text(stat)
  assert memory.free_bytes() == 1000 - (700 - 150)
  memory.require_memory(450, "they", "wait")
  with pytest.raises(UserError, match=r"they take .* GiB, and the memory has .* free; wait"):
    memory.require_memory(451, "they", "wait")


def test_what_the_machine_has_given_away_is_not_free(monkeypatch, tmp_path):
  monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "none")
  assert 0 < memory.free_bytes() <= psutil.virtual_memory().total
  monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=300))
  assert (memory.host_bytes(), memory.free_bytes()) == (1000, 300)
