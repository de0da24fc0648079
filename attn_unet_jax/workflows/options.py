"""The options of the workflows that are flags of a command, and no keys of a run's config."""

from dataclasses import dataclass

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance


@dataclass(frozen=True)
class AnswerOptions:
  """What is read of each scan, and what is written for it: the flags of `predict`.

  Attributes:
    series: SeriesInstanceUID to segment if the source contains several DICOM series.
    boxes_file: JSON file of boxes to segment.
    accept: doubts about the scans that the user accepts.
    as_json: whether to write the volume of each class beside each mask, to NAME.json.
  """

  series: str | None = None
  boxes_file: str | None = None
  accept: Acceptance = NOTHING
  as_json: bool = False
