"""Starts and ends every command: flags in, exit status out.

The status is 0 when the work is done; 2 when the user's input is wrong (one `error:` line); 1 for a
fault of the program (traceback); 130 and 143 when SIGINT or SIGTERM stopped it after saving.
"""

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
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.signals import STOP_SIGNALS, Interrupted, exit_status

_RESEND_AFTER_S = 0.1
_HELP_FLAG = re.compile(r"--?(help(short|full)?|\?)")


def run_command(main: Callable[[], None]) -> None:
  """Runs `main` under the rules above; `--help` shows the docstring of its module."""
  # Libraries log much at INFO; what a user must read is printed or raised.
  logging.set_verbosity(logging.WARNING)
  # A terminal may not know ±, and a file's name may be in no encoding at all. Neither must end the
  # program.
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
  # Orbax logs an error with its traceback and raises it too. What it raises is printed below.
  logging.get_absl_handler().addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
  )
  app.run(lambda _: _run_main(main), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  # absl's own help flag ends with status 1.
  if asked := next(filter(_HELP_FLAG.fullmatch, argv[1:]), None):
    app.usage(
      shorthelp="full" not in asked,
      writeto_stdout=True,
      detailed_error="Try --helpfull to get a list of all flags.",
      exitcode=0,
    )
  try:
    rest = flags.FLAGS(argv)
  except (flags.Error, UserError, OSError, TypeError, ValueError) as error:
    _exit_with_error(_error_line(error))
  except Exception as error:  # an unknown key, or whatever the code of an experiment file raises
    what = f"{type(error).__name__}: {_error_line(error)}"
    from attn_unet_jax.config.flags import explain_unknown_key

    _exit_with_error(
      explain_unknown_key(argv) or f"--config: the experiment file does not load: {what}"
    )
  if len(rest) > 1:
    _exit_with_error(f"{rest[1]!r} is not a flag; write --name=value (--help lists the flags)")
  return rest


def _run_main(main: Callable[[], None]) -> None:
  signal.signal(signal.SIGTERM, _raise_interrupted)
  sys.unraisablehook = _resend_dropped_signal
  xla.enable_compilation_cache()
  xla.keep_channels_last()
  try:
    main()
  except UserError as error:
    _exit_with_error(_error_line(error))
  except BrokenPipeError as error:  # the reader of the output, such as `head`, has had enough
    # Python would complain when it flushes stdout at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exit_status(error))
  except OSError as error:
    if exit_status(error) == 1:
      raise
    _exit_with_error(f"{error.filename or 'writing a file'}: {error.strerror}")
  except (Interrupted, KeyboardInterrupt) as stop:
    _exit_ignoring_signals(exit_status(stop))


def _exit_ignoring_signals(number: int) -> None:
  """Exits with a status that a second signal does not change."""
  for stopping in STOP_SIGNALS:
    signal.signal(stopping, signal.SIG_IGN)
  sys.exit(number)


def _raise_interrupted(number: int, _: FrameType | None) -> None:
  raise Interrupted(number)


def _resend_dropped_signal(ignored: "sys.UnraisableHookArgs") -> None:
  """Sends a signal again that came where Python drops exceptions, such as in a finaliser."""
  again = {Interrupted: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(ignored.exc_type)
  if again is None:
    sys.__unraisablehook__(ignored)
  else:  # later, since here it would be dropped as well
    threading.Timer(_RESEND_AFTER_S, os.kill, (os.getpid(), again)).start()


def _error_line(error: BaseException) -> str:
  inner = error.args[0] if error.args else None
  if isinstance(inner, BaseException):  # ml_collections wraps a KeyError into an AttributeError
    return _error_line(inner)
  if isinstance(error, KeyError) and error.args:  # `str` of a KeyError puts the text in quotes
    return format_error(Exception(inner))
  return format_error(error)


def _exit_with_error(message: str) -> None:
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)
