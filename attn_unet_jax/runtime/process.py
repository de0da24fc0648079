"""How every command starts and ends: flags in, exit status out.

0 done; 2 the user's input is wrong (one `error:` line); 1 our fault (traceback); 130 and 143
stopped by SIGINT or SIGTERM after saving.
"""

import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from absl import app, flags, logging

from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.errors import UserError, one_line
from attn_unet_jax.runtime.signals import STOPPING, Interrupted, status

TakeFlags = Callable[[Sequence[str]], list[str]]

_LATER_S = 0.1
_HELP = re.compile(r"--?(help(short|full)?|\?)")


def run(main: Callable[[], None], take_flags: TakeFlags = list) -> None:
  """Runs `main` under the exit-status rules above; `--help` shows its module's docstring.

  Args:
    main: the command.
    take_flags: takes from the arguments what absl does not know, and returns the others.
  """
  logging.set_verbosity(logging.WARNING)
  if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal knows ±, nor every file's name
    sys.stdout.reconfigure(errors="backslashreplace")
  # Orbax logs an error with its traceback and raises it too; what is raised is told below.
  logging.get_absl_handler().addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
  )
  app.run(lambda _: _guarded(main), flags_parser=functools.partial(_parse, take_flags))


def _parse(take_flags: TakeFlags, argv: Sequence[str]) -> list[str]:
  if asked := next(filter(_HELP.fullmatch, argv[1:]), None):  # absl's own would end with 1
    app.usage(
      shorthelp="full" not in asked,
      writeto_stdout=True,
      detailed_error="Try --helpfull to get a list of all flags.",
      exitcode=0,
    )
  try:
    rest = flags.FLAGS([argv[0], *take_flags(argv[1:])])
  except (flags.Error, UserError) as error:
    _fail(_one_line(error))
  if len(rest) > 1:
    _fail(f"{rest[1]!r} is not a flag; write --name=value (--help lists the flags)")
  return rest


def _guarded(main: Callable[[], None]) -> None:
  signal.signal(signal.SIGTERM, _interrupt)
  sys.unraisablehook = _unraisable
  xla.keep_compiled()
  xla.keep_channels_last()
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
  for stopping in STOPPING:
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
