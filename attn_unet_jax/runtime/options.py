"""Options: frozen dataclasses whose fields carry their meaning and the values that they may have.

A package declares what can be set about it in its `options.py`:

    @dataclass(frozen=True)
    class WindowOptions(Options):
      overlap: float = option(0.5, "Overlap of neighbouring windows, a fraction.", BELOW_ONE)

Key, type, default, allowed values and meaning then stand in this one place. An object checks itself
when it is made; flags, `--help` and the reference page are read off the fields.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from attn_unet_jax.runtime.home import expand_home


@dataclasses.dataclass(frozen=True)
class Rule:
  """A condition on a value.

  Attributes:
    text: what a value must be, in words that follow "must be".
    holds: whether a value meets it.
    whole: whether a tuple is checked as one value; else each of its elements is.
  """

  text: str
  holds: Callable[[Any], bool]
  whole: bool = False


POSITIVE = Rule("above 0", lambda value: value > 0)
NOT_NEGATIVE = Rule("at least 0", lambda value: value >= 0)
BELOW_ONE = Rule("at least 0, below 1", lambda value: 0 <= value < 1)
FRACTION = Rule("0 to 1", lambda value: 0 <= value <= 1)


def one_of(*values: Any) -> Rule:
  """Returns the rule that a value is one of a few."""
  return Rule(f"one of {values}", lambda value: value in values)


class OptionError(ValueError):
  """A value that an option may not have.

  Attributes:
    key: name of the field.
    value: what it was given.
    rule: what it must be, in words.
  """

  def __init__(self, key: str, value: Any, rule: str):
    super().__init__(f"{key}={value!r}: must be {rule}")
    self.key, self.value, self.rule = key, value, rule


def option(
  default: Any,
  doc: str,
  *rules: Rule,
  key: str = "",
  only_if: tuple[str, Any] | None = None,
  is_path: bool = False,
) -> Any:
  """Declares a field of an options dataclass.

  Args:
    default: the value where none is given.
    doc: the meaning, in one line, with the unit.
    *rules: what a value must be, beyond its type.
    key: the name as a flag, where it is not the field's own.
    only_if: another field and the value it must have for this one to be read.
    is_path: whether the value is a path, in which `~` is the home folder.
  """
  metadata = {"doc": doc, "rules": rules, "key": key, "only_if": only_if, "is_path": is_path}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
  """A base of options that check themselves.

  Raises:
    OptionError: a value has another type, is not finite, or breaks a rule of its field.
  """

  def __post_init__(self) -> None:
    """Expands `~` in paths, and checks every field."""
    kinds = field_types(type(self))
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.metadata.get("is_path") and isinstance(value, str):
        object.__setattr__(self, field.name, expand_home(value))  # the way in a frozen dataclass
      check_value(field, kinds[field.name], getattr(self, field.name))


def field_types(options: type[Any]) -> dict[str, Any]:
  """Returns the types of a dataclass's fields, by name."""
  return typing.get_type_hints(options)


def check_value(field: "dataclasses.Field[Any]", kind: Any, value: Any) -> None:
  """Checks one value.

  Args:
    field: what it is for, declared by `option`.
    kind: its type.
    value: what is checked.

  Raises:
    OptionError: it has another type, is not finite, or breaks a rule.
  """
  if not has_type(value, kind):
    raise OptionError(field.name, value, describe_type(kind, field.default))
  if not _is_finite(value):
    raise OptionError(field.name, value, "finite")
  for rule in field.metadata.get("rules", ()):
    values = value if isinstance(value, tuple) and not rule.whole else (value,)
    if value is not None and not all(map(rule.holds, values)):
      raise OptionError(field.name, value, rule.text)


def has_type(value: Any, kind: Any) -> bool:
  """Returns whether a value has a field's type; a whole number counts as a float."""
  if kind is Any:
    return True
  if typing.get_origin(kind) is Literal:
    return value in typing.get_args(kind)
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    return any(has_type(value, one) for one in typing.get_args(kind))
  if typing.get_origin(kind) is tuple:
    return isinstance(value, tuple) and _has_items(value, typing.get_args(kind))
  if kind is not bool and isinstance(value, bool):  # which Python counts among the integers
    return False
  return isinstance(value, (int, float) if kind is float else kind)


def _has_items(value: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
  if len(kinds) == 2 and kinds[1] is Ellipsis:
    return True  # of any length: what is in it, a rule of the field says better than a type
  same = len(value) == len(kinds)
  return same and all(has_type(one, kind) for one, kind in zip(value, kinds, strict=True))


def describe_type(kind: Any, default: Any) -> str:
  """Returns a type in words that follow "must be": `3 values of type int, like (1, 2, 3)`."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    members = [one for one in typing.get_args(kind) if one is not types.NoneType]
    return " or ".join(describe_type(one, default) for one in members)
  if typing.get_origin(kind) is Literal:
    values = typing.get_args(kind)
    return repr(values[0]) if len(values) == 1 else f"one of {values}"
  if typing.get_origin(kind) is tuple and ... not in typing.get_args(kind):
    first, *_ = kinds = typing.get_args(kind)
    return f"{len(kinds)} values of type {first.__name__}, like {default}"
  return f"of type {(typing.get_origin(kind) or kind).__name__}"


def describe_kind(kind: Any) -> str:
  """Returns a type in words for a reference: `float`, `3 x int`, `float or None`."""
  arguments = typing.get_args(kind)
  if kind is Any:
    return "any"
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    return " or ".join("None" if one is types.NoneType else describe_kind(one) for one in arguments)
  if typing.get_origin(kind) is Literal:
    return repr(arguments[0]) if len(arguments) == 1 else f"one of {arguments}"
  if typing.get_origin(kind) is tuple:
    return "tuple" if ... in arguments else f"{len(arguments)} x {describe_kind(arguments[0])}"
  return str(kind.__name__)


def _is_finite(value: Any) -> bool:
  if isinstance(value, tuple):
    return all(map(_is_finite, value))
  # A whole number may be larger than any float, into which it is converted later.
  if isinstance(value, (int, float)):
    return abs(value) <= sys.float_info.max  # which holds for no NaN
  return True
