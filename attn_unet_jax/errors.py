"""What a command says when its input, not the program, is wrong."""


class UserError(Exception):
  """The user's input is wrong: one line naming the file, the value, the rule and the way out.

  Commands print it on stderr after `error: ` and end with status 2, without a traceback.
  """
