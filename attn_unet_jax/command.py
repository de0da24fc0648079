"""How every command starts and ends: flags in, exit status out.

0 done; 2 the user's input is wrong (one `error:` line); 1 our fault (traceback); 130 and 143
stopped by SIGINT or SIGTERM after saving.
"""

import dataclasses
import difflib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from absl import app, flags, logging
from ml_collections import ConfigDict

from attn_unet_jax import compilation
from attn_unet_jax.errors import UserError, one_line

_LATER_S = 0.1
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_HELP = re.compile(r"--?(help(short|full)?|\?)")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # where Python does not know the file


class Interrupted(BaseException):
  """A signal asked the program to stop, and what had to be saved is saved."""

  def __init__(self, signal_number: int):
    super().__init__(f"stopped by signal {signal_number}")
    self.number = signal_number
    self.status = 128 + signal_number


@dataclasses.dataclass
class Stop:
  """Whether a signal asked to stop while signals were `noted`.

  Attributes:
    number: the last signal that did.
    at_once: whether the next one raises `Interrupted` where the program is.
  """

  number: int | None = None
  at_once: bool = False

  def obey(self) -> None:
    """Raises `Interrupted` if one did."""
    if self.number is not None:
      raise Interrupted(self.number)


@contextmanager
def noted(stop: Stop) -> Iterator[None]:
  """While open, SIGTERM and SIGINT do no more than `stop` says."""

  def note(number: int, _: FrameType | None) -> None:
    stop.number = number
    if stop.at_once:
      stop.at_once = False  # one is enough: what it makes the program do is not broken off
      raise Interrupted(number)

  before = {number: signal.signal(number, note) for number in _STOPPING}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def run(main: Callable[[], None]) -> None:
  """Runs `main` under the exit-status rules above; `--help` shows its module's docstring."""
  logging.set_verbosity(logging.WARNING)
  if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal knows ±, nor every file's name
    sys.stdout.reconfigure(errors="backslashreplace")
  # Orbax logs an error with its traceback and raises it too; what is raised is told below.
  logging.get_absl_handler().addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
  )
  app.run(lambda _: _guarded(main), flags_parser=_parse)


def checked_config(*, data: bool = True) -> ConfigDict:
  """The value of `--config`, with the overrides of the other flags, validated.

  Args:
    data: whether the command needs a data set to be named.

  Raises:
    UserError: the experiment file does not load, or a value is not allowed.
  """
  from attn_unet_jax import config as config_keys  # imports JAX, which not every command needs

  try:
    config = flags.FLAGS.config.copy_and_resolve_references()
  except OSError as error:
    raise UserError(f"--config: {str(error).splitlines()[-1].strip()}") from None
  if config.get("deterministic"):
    compilation.make_deterministic()
  return config_keys.validate(config, data=data)


def status(error: BaseException) -> int:
  """The exit status of a command that an exception ends."""
  if isinstance(error, Interrupted):
    return error.status
  if isinstance(error, KeyboardInterrupt):
    return 128 + signal.SIGINT
  if isinstance(error, BrokenPipeError):
    return 128 + signal.SIGPIPE
  if isinstance(error, OSError):
    return 1 if error.filename is None and error.errno not in _NO_ROOM else 2
  return 2 if isinstance(error, UserError) else 1


def _parse(argv: Sequence[str]) -> list[str]:
  if asked := next(filter(_HELP.fullmatch, argv[1:]), None):  # absl's own would end with 1
    app.usage(
      shorthelp="full" not in asked,
      writeto_stdout=True,
      detailed_error="Try --helpfull to get a list of all flags.",
      exitcode=0,
    )
  try:
    rest = flags.FLAGS(argv)
  except (flags.Error, UserError, OSError, TypeError, ValueError) as error:
    _fail(_one_line(error))
  except Exception as error:  # of a key that there is not, or whatever an experiment file raises
    what = f"{type(error).__name__}: {_one_line(error)}"
    _fail(_unknown_key(argv) or f"--config: the experiment file does not load: {what}")
  if len(rest) > 1:
    _fail(f"{rest[1]!r} is not a flag; write --name=value (--help lists the flags)")
  return rest


def _unknown_key(argv: Sequence[str]) -> str:
  """Which flag names no key of the config, and the key most like it; '' if all do."""
  from attn_unet_jax.config import default, flatten  # as above

  keys = flatten(default())
  given = [match[1] for flag in argv if (match := re.match(r"--?config\.([^=]+)", flag))]
  unknown = next((key for key in given if key not in keys), "")
  like = difflib.get_close_matches(unknown, keys, 1)
  hint = f"did you mean config.{like[0]}?" if like else "attn_unet_jax/config.py lists the keys"
  return unknown and f"unknown config key config.{unknown}; {hint}"


def _guarded(main: Callable[[], None]) -> None:
  signal.signal(signal.SIGTERM, _interrupt)
  sys.unraisablehook = _unraisable
  compilation.keep_compiled()
  compilation.keep_channels_last()
  try:
    main()
  except UserError as error:
    _fail(_one_line(error))
  except BrokenPipeError as error:  # who read the output, such as `head`, has had enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status(error))
  except OSError as error:
    if status(error) == 1:
      raise
    _fail(f"{error.filename or 'writing a file'}: {error.strerror}")
  except (Interrupted, KeyboardInterrupt) as stop:
    _leave(status(stop))


def _leave(number: int) -> None:
  """A second signal would only change the status."""
  for stopping in _STOPPING:
    signal.signal(stopping, signal.SIG_IGN)
  sys.exit(number)


def _interrupt(number: int, _: FrameType | None) -> None:
  raise Interrupted(number)


def _unraisable(ignored: "sys.UnraisableHookArgs") -> None:
  """Gives a signal again that came where Python drops exceptions (a finaliser, a weakref)."""
  again = {Interrupted: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(ignored.exc_type)
  if again is None:
    sys.__unraisablehook__(ignored)
  else:  # later: here it would be dropped as well
    threading.Timer(_LATER_S, os.kill, (os.getpid(), again)).start()


def _one_line(error: BaseException) -> str:
  inner = error.args[0] if error.args else None
  if isinstance(inner, BaseException):  # ml_collections gives an AttributeError a KeyError to show
    return _one_line(inner)
  if isinstance(error, KeyError) and error.args:  # its own text is quoted
    return one_line(Exception(inner))
  return one_line(error)


def _fail(message: str) -> None:
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)
