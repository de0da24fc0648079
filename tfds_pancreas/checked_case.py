"""What is known of one real scan and its label once they have been read."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from attn_unet_jax.volumes.volume import Volume


# A protocol, not a base class: cases are data classes in one builder, named tuples in another.
class CaseInput(Protocol):
  """The description of a case to be made: anything with an id that can be pickled."""

  @property
  def id(self) -> str:
    """The record's id; no patient's name or number."""


class VolumePair(NamedTuple):
  """The HU and the label of one case `[X, Y, Z]` on one canonical grid; labels fit uint8."""

  image: Volume
  label: Volume


@dataclass
class CheckedCase:
  """The result of reading a case; `pair` is None where image and label cannot be joined.

  Attributes:
    figures: for the report; JSON can hold them.
    problems: what is wrong, each in one line with its figures; empty for a good case.
    doubts: what was accepted or is probably not meant, each in one line.
  """

  id: str
  pair: VolumePair | None = None
  figures: dict[str, Any] = field(default_factory=dict)
  problems: list[str] = field(default_factory=list)
  doubts: list[str] = field(default_factory=list)
