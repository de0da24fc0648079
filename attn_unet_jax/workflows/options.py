"""The options of the workflows that are flags of a command, and no keys of a run's config."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.workflows.write_mask import OutputFormat


@dataclass(frozen=True)
class EngineOptions:
  """What computes the networks of a prediction.

  Attributes:
    engine: `auto` is OpenVINO where that is installed and answers as JAX does, else JAX.
    precision: the type in which OpenVINO computes convolutions.
  """

  engine: Literal["auto", "jax", "openvino"] = "auto"
  precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class AnswerOptions:
  """What is read of each scan, and what is written for it: the flags of `predict`.

  Attributes:
    series: SeriesInstanceUID to segment if the source contains several DICOM series.
    boxes_file: JSON file of boxes to segment.
    accept: doubts about the scans that the user accepts.
    again: whether masks that are there already, of this run and these scans, are made again.
    output_format: the format of the masks.
    postprocess: whether the steps after the network that the run chose are taken.
    mirrors: the axes of the working grid along which mirrored predictions are averaged.
    scales: the scales of further copies whose predictions are averaged too.
    as_json: whether to write the volume of each class beside each mask, to NAME.json.
    save_probabilities: whether to write the probabilities, to NAME_probabilities.nii.gz.
    save_uncertainty: whether to write their entropy, to NAME_uncertainty.nii.gz.
    attention: whether to write the coefficients of the network's gates, to NAME_attention.nii.gz.
    preview: whether to draw each scan with its mask, to NAME.png.
    report: whether to write a page with a viewer of each scan and its mask, to NAME.html.
    engine: what computes the networks.
  """

  series: str | None = None
  boxes_file: str | None = None
  accept: Acceptance = NOTHING
  again: bool = False
  output_format: OutputFormat = "nifti"
  postprocess: bool = True
  mirrors: tuple[int, ...] = ()
  scales: tuple[float, ...] = ()
  as_json: bool = False
  save_probabilities: bool = False
  save_uncertainty: bool = False
  attention: bool = False
  preview: bool = False
  report: bool = False
  engine: EngineOptions = EngineOptions()

  @property
  def saves_maps(self) -> bool:
    """Whether the probabilities are needed once the mask is made."""
    return self.save_probabilities or self.save_uncertainty

  @property
  def written(self) -> dict[str, object]:
    """The options by name on which the written files depend, whatever the scan."""
    # The series and the box are facts of a scan; a doubt that is accepted changes no answer.
    others = ("series", "boxes_file", "accept", "again", "engine")
    written = {name: value for name, value in asdict(self).items() if name not in others}
    # Engines give the same answer, but for voxels where two classes are as likely to 1e-5.
    return {**written, "precision": self.engine.precision}


@dataclass(frozen=True)
class ScoreOptions:
  """How runs are scored: the flags of `evaluate` that are no cases.

  Attributes:
    accept: doubts about the scans that the user accepts.
    rules: options of scoring by their names, in place of the run's own.
    postprocess: whether the steps after the network that the run chose are taken.
    mirrors: the axes of the working grid along which mirrored predictions are averaged.
    scales: the scales of further copies whose predictions are averaged too.
    attention: whether to measure where the network's gates look.
    uncertainty: whether to write the entropy of each prediction.
  """

  accept: Acceptance = NOTHING
  rules: Mapping[str, Any] = field(default_factory=dict)
  postprocess: bool = True
  mirrors: tuple[int, ...] = ()
  scales: tuple[float, ...] = ()
  attention: bool = False
  uncertainty: bool = False
