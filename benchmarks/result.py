"""What every benchmark does at its end: say what was measured, on what, and keep it."""

import contextlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from attn_unet_jax.runtime.files import write_text

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
  """What the figures were taken on, and how busy it was (load average of a minute)."""
  lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
  names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
  return {
    "cpu": names[0] if names else platform.processor(),
    "cores": psutil.cpu_count(),
    "load_before": round(psutil.getloadavg()[0], 1),
    "python": platform.python_version(),
  }


def read_versions() -> dict[str, str]:
  """The versions of what computes here: ours and the peers' libraries, as far as installed."""
  versions = {}
  for name in ("jax", "jaxlib", "numpy", "openvino", "torch", "monai", "attn-unet-jax-onednn"):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return versions


def keep(result: dict[str, Any], output: str | None) -> None:
  """Prints a result as JSON and, if a file is named, writes it there; makes its folder."""
  text = json.dumps(result, indent=2)
  print(text)
  if output:
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    write_text(Path(output), text + "\n")
