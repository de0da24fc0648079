"""What a command says when its input, not the program, is wrong."""


class UserError(Exception):
  """The user's input is wrong: one line naming the file, the value, the rule and the way out.

  Commands print it on stderr after `error: ` and end with status 2, without a traceback.
  """


def format_error(error: BaseException) -> str:
  """What an exception says, on one line; its name where it says nothing."""
  return " ".join(str(error).split()) or type(error).__name__
