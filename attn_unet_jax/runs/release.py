"""A release: of one run or several what predicts, in a folder to be passed on, with digests.

`release.json` says what the network learnt from, how well it did on test cases, and its licence.
The ids of the cases that it has seen are there as digests, since a case may be called after a
patient. Nothing is written into a release.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import read_json_object, write_text

RECORD, PARAMETERS = "release.json", "parameters.npz"
NOTICE = "not a medical device"
WAY_OUT = "install it, or export the run, again"
# Of one network, and of the mean of several, which a version that knows of one alone must refuse.
_FORMATS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Release:
  """What a release says about itself.

  Attributes:
    checkpoint_step: the step of the run's checkpoint.
    classes: what it segments, without the background.
    trained_on: its data, in words.
    licence: that of its values.
    test_cases: how many cases it was tested on.
    test_dsc: the mean DSC of each class that was scored on them.
    rounding: how its answers differ from those of the run's parameters in float32.
    seen: digests of the ids of its training and validation cases; None where they are unknown.
    program: what wrote it.
    networks: how many there are of one recipe, whose probabilities are averaged.
  """

  checkpoint_step: int
  classes: tuple[str, ...]
  trained_on: str
  licence: str
  test_cases: int
  test_dsc: Mapping[str, float]
  rounding: Mapping[str, Any]
  seen: tuple[str, ...] | None
  program: str
  networks: int = 1

  @property
  def parameter_files(self) -> tuple[str, ...]:
    """The names of the files with the parameters, one of each network."""
    return name_parameters(self.networks)

  def describe(self) -> str:
    """Describes it in one line."""
    scores = ", ".join(f"{name} {dsc:.2f}" for name, dsc in self.test_dsc.items())
    mean = f" by the mean of {self.networks} networks" if self.networks > 1 else ""
    return (
      f"segments {', '.join(self.classes)}{mean}; trained on {self.trained_on}; mean DSC on "
      f"{self.test_cases} test cases: {scores}; licence {self.licence}; {NOTICE}"
    )

  def find_seen(self, ids: Iterable[str]) -> list[str] | None:
    """Returns which of these cases it was trained or validated on; None where that is unknown."""
    return None if self.seen is None else [one for one in ids if digest_id(one) in self.seen]


def name_parameters(networks: int) -> tuple[str, ...]:
  """Returns the names of the files with the parameters of so many networks."""
  stem, _, suffix = PARAMETERS.partition(".")
  return (PARAMETERS, *(f"{stem}_{number}.{suffix}" for number in range(2, networks + 1)))


def is_release(folder: Path) -> bool:
  """Returns whether a folder is a release."""
  return (folder / RECORD).is_file()


def write_release(folder: Path, release: Release, files: Sequence[str]) -> None:
  """Writes `release.json` beside the files of these names, which are there already."""
  content = {
    "format": _choose_format(release.networks),
    "notice": NOTICE,
    **dataclasses.asdict(release),
    # As they lie on the disk, not as they were meant to be written.
    "files": {name: _digest_file(folder / name) for name in files},
  }
  write_text(folder / RECORD, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_release(folder: Path) -> Release:
  """Reads what a release says about itself, once its files are known to be whole.

  Raises:
    UserError: a file is missing, damaged, or of another version.
    OSError: a file cannot be read for another reason.
  """
  path = folder / RECORD
  content = read_json_object(path, WAY_OUT)
  try:
    # First: another version may mean something else by the other keys.
    if content["format"] not in _FORMATS:
      raise ValueError(f"format {content['format']!r} of another version")
    files = {str(name): str(digest) for name, digest in content["files"].items()}
    release = _parse(content)
    fits = content["format"] == _choose_format(release.networks)
    if not fits or not 1 <= release.networks <= len(files):
      raise ValueError(f"{release.networks} networks in format {content['format']}")
    # So that each is one of those whose digests are compared.
    if missing := set(release.parameter_files) - files.keys():
      raise ValueError(f"no digest of {', '.join(sorted(missing))}")
  except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
    raise UserError(f"{path}: not a release ({format_error(error)}); {WAY_OUT}") from None
  for name, digest in files.items():
    try:
      found = _digest_file(folder / name)
    except FileNotFoundError:
      raise UserError(f"{folder / name}: missing; {WAY_OUT}") from None
    if found != digest:
      raise UserError(f"{folder / name}: not what was released (by its SHA-256); {WAY_OUT}")
  return release


def digest_id(case_id: str) -> str:
  """Returns the digest that stands for the id of a case."""
  return hashlib.sha256(case_id.encode(errors="surrogateescape")).hexdigest()[:16]


def require_no_release(folder: Path, way_out: str) -> None:
  """Refuses to write into a release.

  Args:
    folder: the folder that a command would write into.
    way_out: what to do instead, for the message.

  Raises:
    UserError: it is a release.
  """
  if is_release(folder):
    raise UserError(f"--workdir={folder}: a release, into which nothing is written; {way_out}")


def _choose_format(networks: int) -> int:
  return _FORMATS[networks > 1]


def _parse(content: Mapping[str, Any]) -> Release:
  seen = content["seen"]
  return Release(
    checkpoint_step=int(content["checkpoint_step"]),
    classes=tuple(map(str, content["classes"])),
    trained_on=str(content["trained_on"]),
    licence=str(content["licence"]),
    test_cases=int(content["test_cases"]),
    test_dsc={str(name): float(dsc) for name, dsc in content["test_dsc"].items()},
    rounding=dict(content["rounding"]),
    seen=None if seen is None else tuple(map(str, seen)),
    program=str(content["program"]),
    networks=int(content.get("networks", 1)),
  )


def _digest_file(path: Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
