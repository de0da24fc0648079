"""The figures of `benchmarks.peers.compare` as Markdown."""

from collections.abc import Mapping
from typing import Any

from benchmarks.page import table

_TITLES = {
  "training_step": "A training step on one patch: forward, both gradients, new statistics",
  "inference": "The scores of one patch",
  "scan": "A scan of 512 x 512 x 300, from its file to its mask",
  "training": "A step of a training, with augmentation, loader and optimiser",
}
_HEAD = ["", "median", "least to greatest", "times ours", "peak memory"]


def write_tables(result: Mapping[str, Any]) -> str:
  """Writes a table for each part that was measured; above, the machine and the time of it all."""
  on = result["machine"]
  edge = result["patch"]
  minutes = sum(result["took_s"].values()) / 60
  about = (
    f"{on['cores']} cores ({on['cpu']}), load {on['load_before']} before; patches of {edge}^3; "
    f"{minutes:.0f} minutes in all."
  )
  parts = [
    f"**{title}**\n\n{table(_HEAD, [_cells(name, row) for name, row in result[part].items()])}"
    for part, title in _TITLES.items()
    if part in result
  ]
  return "\n\n".join([about, *parts])


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
  if "error" in row:
    return [name, f"none: {row['error']}", "", "", ""]
  return [
    name,
    f"{row['median_s']:.3g} s",
    f"{row['min_s']:.3g} to {row['max_s']:.3g} s",
    f"{row['times_ours']:.2f}",
    f"{row['peak_gib']:.1f} GiB",
  ]
