"""Which values of a label volume mean which class.

A mapping is written `CLASS=VALUE+VALUE,CLASS=VALUE`: `pancreas=1`, `pancreas=1+2` (the tumour is
merged), `spleen=1,pancreas=10,background=*`. Where the data carries names, a value may be a name
and `pancreas` alone means `pancreas=pancreas`. Background is 0, and what is not mentioned is an
error, unless the data names it or `background=*` says that all else is background. `unlabelled=3`
says of which voxels nobody knows what they are: they are trained on and scored as little as if they
were not there. Where 0 is that value, `background=VALUE` says what the background is.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attn_unet_jax.runtime.errors import UserError

UNLABELLED = 255  # the largest uint8

_BACKGROUND, _UNLABELLED = "background", "unlabelled"
_FLAG = "config.data.labels"


@dataclasses.dataclass(frozen=True)
class LabelMapping:
  """Foreground classes in order (class k is `classes[k - 1]`) and the values of each.

  `flag` is what it was written in, without the dashes.
  """

  classes: tuple[str, ...]
  values: tuple[frozenset[int], ...]
  background: frozenset[int]
  rest_is_background: bool
  unlabelled: frozenset[int] = frozenset()
  flag: str = _FLAG

  @property
  def class_indices(self) -> dict[str, int]:
    """Class name -> index in the network's output; background is 0."""
    return {name: index + 1 for index, name in enumerate(self.classes)}

  def apply(self, labels: np.ndarray, source: str) -> np.ndarray:
    """Class indices, uint8 `[X, Y, Z]`, of a volume of label values; `UNLABELLED` where unknown.

    Raises:
      UserError: a value outside the mapping; names it and the mapping that would fix it.
    """
    present = np.unique(labels)
    unknown = self.unknown_values(present.tolist())
    if unknown:
      raise UserError(
        f"{source}: label values {unknown[:8]} are outside the mapping {self}; "
        f"say what they mean, or that they are background: --{self.flag}='{self},background=*'"
      )
    classes = np.zeros(len(present), np.uint8)
    for index, values in enumerate(self.values):
      classes[np.isin(present, list(values))] = index + 1
    classes[np.isin(present, list(self.unlabelled))] = UNLABELLED
    return classes[np.searchsorted(present, labels)]

  def unknown_values(self, values: Iterable[int]) -> list[int]:
    """Those of some values that mean nothing."""
    known = self.background.union(self.unlabelled, *self.values)
    return [value for value in values if value not in known and not self.rest_is_background]

  def restrict_to(self, classes: Sequence[str]) -> "LabelMapping":
    """These of its classes, in this order; the values of the others are background."""
    values = dict(zip(self.classes, self.values, strict=True))
    kept = tuple(values.pop(name) for name in classes)
    background = self.background.union(*values.values())
    return dataclasses.replace(self, classes=tuple(classes), values=kept, background=background)

  def describe(self) -> str:
    """The mapping, and what else of the data it makes background."""
    others = sorted(self.background - {0})
    rest = "all other values" if self.rest_is_background else f"values {others}" if others else ""
    return f"{self}, {rest} background" if rest else str(self)

  def __str__(self) -> str:
    """The mapping as it is written in the config."""
    pairs = list(zip(self.classes, self.values, strict=True))
    pairs += [(_UNLABELLED, self.unlabelled)] if self.unlabelled else []
    pairs += [] if 0 in self.background else [(_BACKGROUND, self.background)]
    return ",".join(f"{name}={'+'.join(map(str, sorted(values)))}" for name, values in pairs)


def parse_mapping(text: str, names: Mapping[str, int] | None, flag: str = _FLAG) -> LabelMapping:
  """Reads a mapping as `config.data.labels`, or another `flag`, says it.

  `names` are those that the data set carries, if any.

  Raises:
    UserError: the text is not a mapping, or a name is not in the data.
  """
  named, where = dict(names or {}), f"{flag}={text!r}"
  classes: dict[str, frozenset[int]] = {}
  for part in filter(None, text.replace(" ", "").split(",")):
    name, _, values = part.partition("=")
    if name in classes:
      raise UserError(f"{where}: {name!r} is given twice")
    classes[name] = _parse_values(name, values, named, where)
  background = classes.pop(_BACKGROUND, frozenset())
  unlabelled = classes.pop(_UNLABELLED, frozenset())
  if not classes:
    raise UserError(f"{where}: name at least one class, like 'pancreas=1'")
  if 0 not in unlabelled:
    background |= {0}
  _check_disjoint({**classes, _UNLABELLED: unlabelled - {0}}, where)
  mentioned = unlabelled.union(*classes.values())
  if mentioned & background:
    raise UserError(
      f"{where}: value {min(mentioned & background)} is background and something else"
    )
  if not background:
    raise UserError(f"{where}: 0 is unlabelled; say background=VALUE")
  everything_else = _STAR in background
  known = frozenset(named.values()) - mentioned
  return LabelMapping(
    classes=tuple(classes),
    values=tuple(classes.values()),
    background=(background - {_STAR}) | known,
    rest_is_background=everything_else,
    unlabelled=unlabelled,
    flag=flag,
  )


_STAR = -(2**31)  # stands for '*' among values; no label file holds it


def _parse_values(name: str, text: str, named: Mapping[str, int], where: str) -> frozenset[int]:
  if not text:
    text = name if named else "1"
  values = set()
  for item in text.split("+"):
    if item == "*" and name == _BACKGROUND:
      values.add(_STAR)
    elif item in named:
      values.add(int(named[item]))
    elif re.fullmatch(r"-?[0-9]+", item):
      values.add(int(item))
    else:
      known = f"one of {sorted(named)}" if named else "a number: this data carries no names"
      raise UserError(f"{where}: {item!r} must be {known}")
  return frozenset(values)


def _check_disjoint(classes: Mapping[str, frozenset[int]], where: str) -> None:
  seen: set[int] = {0}
  for name, values in classes.items():
    if seen & values:
      raise UserError(
        f"{where}: value {min(seen & values)} of {name!r} has a meaning already (0 is background)"
      )
    seen |= values


def class_names(text: str) -> tuple[str, ...]:
  """The foreground classes that `config.data.labels` names, in order."""
  names = [part.partition("=")[0] for part in text.replace(" ", "").split(",") if part]
  classes = tuple(name for name in names if name not in (_BACKGROUND, _UNLABELLED))
  if not classes or len(set(classes)) < len(classes):
    raise UserError(f"config.data.labels={text!r}: name one class or more, each once")
  return classes
