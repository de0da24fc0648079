"""The errors that tell a user that the input, and not the program, is wrong."""

from pathlib import Path


class UserError(Exception):
  """An error of the user's input: one line with the file, the value, the rule and the way out.

  Commands print it on stderr after `error: ` and end with status 2, without a traceback.
  """


class WriteError(UserError):
  """A file of the program's own cannot be written: a full disk, or permissions.

  Attributes:
    reason: what the system says.
  """

  def __init__(self, path: Path | str, error: OSError, way_out: str = "") -> None:
    self.reason = error.strerror or "a system error"
    end = f"; {way_out}" if way_out else ""
    super().__init__(f"{path}: cannot be written ({self.reason}){end}")


def format_error(error: BaseException) -> str:
  """Returns an exception's text on one line, or its class's name if it has no text."""
  inner = error.args[0] if error.args else None
  if isinstance(inner, BaseException):  # ml_collections wraps a KeyError into an AttributeError
    return format_error(inner)
  # `str` of a KeyError puts the text in quotes.
  text = str(inner if isinstance(error, KeyError) and error.args else error)
  return " ".join(text.split()) or type(error).__name__
