"""Maps the values of a label volume to classes.

A mapping is written `CLASS=VALUE+VALUE,CLASS=VALUE`: `pancreas=1`, `pancreas=1+2` (merges the
tumour), `spleen=1,pancreas=10,background=*`. If the data carries names, a value may be a name, and
`pancreas` means `pancreas=pancreas`. Spaces count nowhere: a class `left kidney` is called
`leftkidney`, and is the value that the data calls either. Background is 0. A value that is not
mentioned is an error, unless the data names it or `background=*` makes all other values background.
`unlabelled=3` marks voxels of which nobody knows what they are: neither training nor scoring looks
at them. If 0 is that value, `background=VALUE` says what the background is. A value that the data
calls `ignore`, as nnU-Net does, is unlabelled unless the mapping mentions it. `liver=none` is a
class that the data does not label: its voxels may be anywhere in the background.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.runtime.errors import UserError

# The class index of voxels that nobody has labelled. The largest uint8, so that it is never a class
# and labels stay in one byte.
UNLABELLED = 255

# Where a voxel is none of the classes that its data set labels, while the set does not label every
# class: background, or one of the others. One value for each of the data sets of a run.
_REST = (254, 253)

# The name of unlabelled voxels in the dataset.json of nnU-Net.
IGNORE = "ignore"

# A soft label is the share of a voxel that the class fills, stored in so many steps.
SHARE_STEPS = 254

_BACKGROUND, _UNLABELLED, _NONE = "background", "unlabelled", "none"
_MOST_SUGGESTED = 12  # values in a mapping that is suggested
_MOST_VALUES = 300  # more than common atlases have, and far fewer than an image
_FLAG = "config.data.labels"


@dataclasses.dataclass(frozen=True)
class LabelMapping:
  """A mapping from label values to foreground classes.

  Attributes:
    classes: names of the foreground classes; class k is `classes[k - 1]`.
    values: the label values of each class; none for a class that the data does not label.
    background: the values that are background.
    rest_is_background: whether all other values are background too.
    unlabelled: the values of voxels of which nobody knows what they are.
    named: the values of `background` that are it because the data names them.
    flag: the flag that the mapping was written in, without the dashes, for messages.
  """

  classes: tuple[str, ...]
  values: tuple[frozenset[int], ...]
  background: frozenset[int]
  rest_is_background: bool
  unlabelled: frozenset[int] = frozenset()
  named: frozenset[int] = frozenset()
  flag: str = _FLAG

  @property
  def class_indices(self) -> dict[str, int]:
    """The indices of the classes in the network's output, by name; background is 0."""
    return {name: index + 1 for index, name in enumerate(self.classes)}

  @property
  def labelled_indices(self) -> dict[str, int]:
    """The indices of the classes that the data labels: only these can be scored."""
    indices = self.class_indices
    return {
      name: indices[name] for name, values in zip(self.classes, self.values, strict=True) if values
    }

  def apply(self, labels: np.ndarray, source: str) -> np.ndarray:
    """Converts label values to class indices.

    Args:
      labels: label values [X, Y, Z] of any integer type.
      source: the label's file, for the message.

    Returns:
      class indices, uint8 [X, Y, Z]; `UNLABELLED` where the mapping says so.

    Raises:
      UserError: a value is outside the mapping; the message names it and a mapping that knows it.
    """
    # Values are looked up in a table of those present: one pass, whatever their number and range.
    present = np.unique(labels)
    unknown = self.unknown_values(present.tolist())
    if unknown:
      # A few of them are enough: an image that is taken for a label has thousands.
      raise UserError(
        f"{source}: label values {unknown[:8]} are outside the mapping {self}; "
        f"{self.suggest_mappings(present.tolist())}"
      )
    classes = np.zeros(len(present), np.uint8)
    for index, values in enumerate(self.values):
      classes[np.isin(present, list(values))] = index + 1
    classes[np.isin(present, list(self.unlabelled))] = UNLABELLED
    # `present` is sorted, so this is each voxel's place in it.
    return classes[np.searchsorted(present, labels)]

  def unknown_values(self, values: Iterable[int]) -> list[int]:
    """Returns the values that mean nothing in this mapping."""
    known = self.background.union(self.unlabelled, *self.values)
    return [value for value in values if value not in known and not self.rest_is_background]

  def suggest_mappings(self, present: Sequence[int]) -> str:
    """Returns mappings that give a meaning to the values of a file that have none here.

    None of them leaves the file without any class: such labels would train to the end and teach
    that there is no organ.

    Args:
      present: all values of the file.
    """
    if len(present) > _MOST_VALUES:
      return (
        f"{len(present)} values are those of an image, not of a label map: is it the right file?"
      )
    unknown = frozenset(self.unknown_values(present))
    few = len(unknown) <= _MOST_SUGGESTED
    absent = [
      name
      for name, values in zip(self.classes, self.values, strict=True)
      if values and values.isdisjoint(present)
    ]
    it = "it" if len(unknown) == 1 else "them"
    ways = []
    if len(self.classes) == 1 and few:
      # All values that are not background are the likely meaning, such as a tumour's, which belongs
      # to its organ; the class's own value is left out where the file does not have it.
      values = unknown if absent else unknown | self.values[0]
      ways.append(f"'{self._write([values])}' takes {it} for {self.classes[0]}")
    elif absent:
      ways.append(f"'{self._write(self.values, absent)}', with a value for each VALUE")
    if not absent:
      text = self._write(self.values, background=unknown if few else {_STAR})
      ways.append(f"'{text}' takes {it} for background")
    elif len(unknown) > 1:
      ways.append("with background=VALUE for what is none of the classes")
    return f"say what {'it means' if it == 'it' else 'they mean'}: --{self.flag}={', '.join(ways)}"

  def _write(
    self,
    values: Iterable[Iterable[int]],
    absent: Sequence[str] = (),
    background: Iterable[int] = (),
  ) -> str:
    """Writes this mapping with other values, VALUE for absent classes, and more background."""
    rest = {*self.background, *background} - {0} - self.named
    rest |= {_STAR} if self.rest_is_background else set()
    pairs = [*zip(self.classes, values, strict=True)]
    pairs += [(_UNLABELLED, self.unlabelled)] if self.unlabelled else []
    pairs += [(_BACKGROUND, rest)] if rest else []
    return ",".join(
      f"{name}={'VALUE' if name in absent else _join_values(numbers)}" for name, numbers in pairs
    )

  def restrict_to(self, classes: Sequence[str]) -> "LabelMapping":
    """Returns the mapping of some of the classes, in their order; the others become background."""
    values = dict(zip(self.classes, self.values, strict=True))
    kept = tuple(values.pop(name) for name in classes)
    background = self.background.union(*values.values())
    return dataclasses.replace(self, classes=tuple(classes), values=kept, background=background)

  def align_to(self, classes: Sequence[str]) -> "LabelMapping":
    """Returns the mapping for a network of these classes, of which some may be none of the values.

    Other classes of the mapping become background.
    """
    values = dict(zip(self.classes, self.values, strict=True))
    kept = tuple(values.pop(name, frozenset()) for name in classes)
    background = self.background.union(*values.values())
    return dataclasses.replace(self, classes=tuple(classes), values=kept, background=background)

  def describe(self) -> str:
    """Returns the mapping as text, with what else of the data it makes background."""
    others = sorted(self.background - {0})
    rest = "all other values" if self.rest_is_background else f"values {others}" if others else ""
    return f"{self}, {rest} background" if rest else str(self)

  def __str__(self) -> str:
    """Returns the mapping as it is written in the config."""
    pairs = list(zip(self.classes, self.values, strict=True))
    pairs += [(_UNLABELLED, self.unlabelled)] if self.unlabelled else []
    pairs += [] if 0 in self.background else [(_BACKGROUND, self.background)]
    return ",".join(f"{name}={_join_values(values)}" for name, values in pairs)


def parse_mapping(text: str, names: Mapping[str, int] | None, flag: str = _FLAG) -> LabelMapping:
  """Parses a mapping.

  Args:
    text: the mapping as it is written in the config.
    names: name -> value of the labels in the data set, if it carries names.
    flag: the flag that the text comes from, for messages.

  Raises:
    UserError: the text is not a mapping, or a name is not in the data, or is that of two values.
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
  if IGNORE in named:
    unlabelled |= {named[IGNORE]} - background.union(unlabelled, *classes.values())
  if not any(classes.values()):
    raise UserError(f"{where}: name at least one class, like 'pancreas=1'")
  if 0 not in unlabelled:  # data sets that label everything but the background leave it 0
    background |= {0}
  # 0 may be unlabelled, though it may be no class.
  _check_disjoint({**classes, _UNLABELLED: unlabelled - {0}}, where)
  mentioned = unlabelled.union(*classes.values())
  if mentioned & background:
    raise UserError(
      f"{where}: value {min(mentioned & background)} is background and something else"
    )
  if not background:
    raise UserError(f"{where}: 0 is unlabelled; say background=VALUE")
  everything_else = _STAR in background
  # A value that the data names is not unknown. Not being asked for, it is background.
  known = frozenset(named.values()) - mentioned
  return LabelMapping(
    classes=tuple(classes),
    values=tuple(classes.values()),
    background=(background - {_STAR}) | known,
    rest_is_background=everything_else,
    unlabelled=unlabelled,
    named=known - background,
    flag=flag,
  )


_STAR = -(2**31)  # stands for '*' among values; no label file holds it


def _join_values(values: Iterable[int]) -> str:
  return "+".join("*" if value == _STAR else str(value) for value in sorted(values)) or _NONE


def _parse_values(name: str, text: str, named: Mapping[str, int], where: str) -> frozenset[int]:
  if not text:
    # With names, `pancreas` is the value of that name. Without, a mask of 0 and 1 is meant.
    text = name if named else "1"
  if text == _NONE and name not in (_BACKGROUND, _UNLABELLED):
    return frozenset()
  values = set()
  for item in text.split("+"):
    if item == "*" and name == _BACKGROUND:
      values.add(_STAR)
    elif item not in named and re.fullmatch(r"-?[0-9]+", item):
      values.add(int(item))
    else:
      values.add(_find_named_value(item, named, where))
  return frozenset(values)


def _find_named_value(item: str, named: Mapping[str, int], where: str) -> int:
  """Returns the value of a name; one of the data may have spaces, which a mapping has lost."""
  found = {name: int(value) for name, value in named.items() if name.replace(" ", "") == item}
  if len(set(found.values())) > 1:
    raise UserError(
      f"{where}: {item!r} may be {' or '.join(map(repr, found))}, since spaces do not count; give "
      f"the value, {' or '.join(map(str, found.values()))}"
    )
  if not found:
    known = f"one of {sorted(named)}" if named else "a number: this data carries no names"
    raise UserError(f"{where}: {item!r} must be {known}")
  return next(iter(found.values()))


def _check_disjoint(classes: Mapping[str, frozenset[int]], where: str) -> None:
  seen: set[int] = {0}
  for name, values in classes.items():
    # One value in two classes would go to the later one without a word.
    if seen & values:
      raise UserError(
        f"{where}: value {min(seen & values)} of {name!r} has a meaning already (0 is background)"
      )
    seen |= values


def class_names(text: str) -> tuple[str, ...]:
  """Returns the foreground classes that a mapping names, in order, without looking at data."""
  names = [part.partition("=")[0] for part in text.replace(" ", "").split(",") if part]
  classes = tuple(name for name in names if name not in (_BACKGROUND, _UNLABELLED))
  if not classes or len(set(classes)) < len(classes):
    raise UserError(f"config.data.labels={text!r}: name one class or more, each once")
  return classes


def rest_value(place: int) -> int:
  """Returns the label value of what is none of the classes that a data set labels.

  Args:
    place: of the data set among those of a run, from 0.
  """
  return _REST[place]


def is_foreground(labels: Any) -> Any:
  """Returns where a voxel is known to be of a class, as an array of booleans.

  Args:
    labels: class indices, or shares in [0, 1], as an array of NumPy or JAX.
  """
  # The values without a class are the largest ones.
  return (labels > 0) & (labels < min(_REST))


def find_labelled_classes(text: str) -> tuple[bool, ...]:
  """Returns whether the data labels each class that a mapping names, without looking at data."""
  parts = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part)
  return tuple(parts[name] != _NONE for name in class_names(text))
