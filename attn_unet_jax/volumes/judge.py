"""Decides for every command whether a scan can be worked with: what `check` lists is refused here.

The findings are those of `hounsfield`, `placement` and `pose`. An error is raised, unless the user
accepts its reason; what is accepted, and what is only a warning, comes back as lines.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from attn_unet_jax.runtime.acceptance import (
  NOTHING,
  REASONS,
  Acceptance,
  refuse_unless_accepted,
)
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.hounsfield import intensity_findings
from attn_unet_jax.volumes.placement import header_findings, shear_findings, spacing_findings
from attn_unet_jax.volumes.pose import pose_findings
from attn_unet_jax.volumes.volume import Grid, Volume


@dataclasses.dataclass(frozen=True)
class Judge:
  """A rule for which scans are worked with.

  Attributes:
    accept: the doubts that the user accepts.
    window_hu: the window that values are clipped to before they are used; None: they are used
      whole.
  """

  accept: Acceptance = NOTHING
  window_hu: tuple[float, float] | None = None

  def judge_scan(self, image: Volume, name: object, file: Path | None = None) -> list[str]:
    """Checks a scan that was read.

    Args:
      image: the scan, HU as it should be.
      name: what to call it.
      file: its NIfTI file, if it comes from one.

    Returns:
      lines for the screen: what was accepted, and what is probably not meant.

    Raises:
      UserError: the scan cannot be trusted, for a reason that the user does not accept.
    """
    findings = list(intensity_findings(image, name, self.window_hu))
    values = settle_findings(findings, self.accept)
    lines = [*self.judge_grid(image.grid, name, file), *values]
    # Values that are no HU show no anatomy.
    if not any(one.severity == "error" for one in findings):
      lines += settle_findings(pose_findings(image, name), self.accept)
    return lines

  def judge_grid(self, grid: Grid, name: object, file: Path | None = None) -> list[str]:
    """Checks the place of a scan's voxels; arguments, lines and errors as of `judge_scan`."""
    findings = [*spacing_findings(grid, name), *shear_findings(grid, name)]
    return settle_findings([*findings, *(header_findings(file) if file else ())], self.accept)


def settle_findings(findings: Iterable[Finding], accept: Acceptance) -> list[str]:
  """Returns the lines of findings that are accepted or are warnings.

  Raises:
    UserError: an error that is not accepted.
  """
  lines = []
  for one in findings:
    if one.severity == "error" and one.kind in REASONS:
      lines.append(refuse_unless_accepted(one.kind, one.text, accept))
    elif one.severity == "error":
      raise UserError(one.text)
    # Notes are for those who look for them, by `check`.
    elif one.severity == "warning":
      lines.append(f"warning: {one.text}")
  return lines
