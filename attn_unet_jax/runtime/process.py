"""Starts and ends every command: flags in, exit status out.

The status is 0 when the work is done; 2 when the user's input is wrong (one `error:` line); 1 for a
fault of the program (traceback); 130 and 143 when SIGINT or SIGTERM stopped it after saving.
"""

import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from logging import LogRecord
from types import FrameType
from typing import Any, NoReturn, Protocol

from absl import app, flags, logging

from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.console import escape_controls
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.home import expand_argument
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from attn_unet_jax.runtime.signals import (
  STOP_SIGNALS,
  Interrupted,
  exit_status,
  forget_signals,
)

_RESEND_AFTER_S = 0.1
_HELP_FLAG = re.compile(r"--?(help(short|full)?|\?)")
_MISSING = re.compile(r"[Ff]lag --(\w+) must have a value other than None")
_NOT_BOOLEAN = re.compile(r"flag (--\w+)=(.*): \('Non-boolean argument.*")
_EXAMPLE = re.compile(r"^ *((?:python -m|attn-unet-jax) \S+ --.*?[^\\])$", re.MULTILINE | re.DOTALL)


class ExtraFlags(Protocol):
  """A source of flags that absl does not know, such as the keys of a run's config."""

  def take(self, arguments: Sequence[str]) -> list[str]:
    """Takes them out of a command's arguments and returns the others."""

  def explain(self, flag: str) -> str:
    """Returns a hint for a flag that nobody knows; '' if there is none."""

  def describe(self) -> str:
    """Returns what `--help` says of them."""


class NoExtraFlags:
  """The flags of a command that has none but absl's."""

  def take(self, arguments: Sequence[str]) -> list[str]:
    """Takes nothing."""
    return list(arguments)

  def explain(self, flag: str) -> str:
    """Returns no hint."""
    del flag
    return ""

  def describe(self) -> str:
    """Returns no text."""
    return ""


_NO_EXTRA_FLAGS = NoExtraFlags()


def run_command(main: Callable[[], None], extra: ExtraFlags = _NO_EXTRA_FLAGS) -> None:
  """Runs `main` under the exit-status rules above; `--help` shows its module's docstring.

  Args:
    main: the command. It imports what is heavy itself, so that `--help` and mistakes cost little.
    extra: the flags that absl does not know.
  """
  if main.__module__ == "__main__":  # before anything heavy is loaded; a restart loads it again
    enable_huge_pages()
  logging.set_verbosity(logging.WARNING)
  # A terminal may not know ±, and a file's name may be in no encoding at all. Neither must end the
  # program.
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
  logging.get_absl_handler().addFilter(_prepare_log_record)
  app.run(lambda _: _run_main(main), flags_parser=functools.partial(_parse_flags, main, extra))


def _prepare_log_record(record: LogRecord) -> bool:
  """Escapes what a terminal would obey in a log's message; returns whether to show it."""
  record.msg, record.args = escape_controls(record.getMessage()), ()
  # Orbax logs an error with its traceback and raises it too. What it raises is printed as an error.
  return f"{os.sep}orbax{os.sep}" not in record.pathname


def _parse_flags(main: Callable[[], None], extra: ExtraFlags, argv: Sequence[str]) -> list[str]:
  if asked := next(filter(_HELP_FLAG.fullmatch, argv[1:]), None):  # absl's own would end with 1
    _print_help(_module_docstring(main), extra, full="full" in asked)
  try:
    given = list(map(expand_argument, argv[1:]))
    rest = flags.FLAGS([argv[0], *extra.take(given)])
  except flags.UnrecognizedFlagError as error:
    hint = extra.explain(error.flagname)
    _exit_with_error(f"--{error.flagname}: unknown flag; {hint}" if hint else format_error(error))
  except (flags.Error, UserError) as error:
    _exit_with_error(_explain_flag_error(format_error(error), _module_docstring(main)))
  if len(rest) > 1:
    _exit_with_error(f"{rest[1]!r} is not a flag; write --name=value (--help lists the flags)")
  return rest


def _print_help(docstring: str, extra: ExtraFlags, *, full: bool) -> NoReturn:
  """Prints the docstring, the flags and the extra flags; ends with status 0."""
  defined = flags.FLAGS.flags_by_module_dict()
  shown = [module for module in defined if full or not module.startswith("absl.")]
  lines = [docstring.strip(), "", "Flags:"]
  for flag in sorted(
    {f.name: f for module in shown for f in defined[module]}.values(), key=_flag_name
  ):
    default = "" if flag.default is None else f" (default: {flag.default_as_str})"
    lines += [f"  --{flag.name}: {flag.help}{default}"]
  lines += ["", "--helpfull lists absl's own flags too." if not full else ""]
  try:
    print("\n".join(lines).rstrip() + "\n" + extra.describe(), end="", flush=True)
  except BrokenPipeError:  # the reader of the output, such as `head`, has had enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  sys.exit(0)


def _flag_name(flag: "flags.Flag[Any]") -> str:
  return flag.name


def _module_docstring(main: Callable[[], None]) -> str:
  """Returns the docstring of a command's module."""
  return sys.modules[main.__module__].__doc__ or ""


def _explain_flag_error(message: str, docstring: str) -> str:
  """Says what absl means by an error: an example for a missing flag, the values of a switch."""
  if match := _NOT_BOOLEAN.fullmatch(message):
    return f"{match[1]}={match[2]}: takes no value but true and false; write {match[1]} alone"
  if not (match := _MISSING.search(message)):
    return message
  return describe_missing(match[1], docstring)


def describe_missing(flag: str, docstring: str) -> str:
  """Says that a flag is missing, with the example of it in a command's docstring."""
  examples = _EXAMPLE.findall(docstring)
  example = next((text for text in examples if f"--{flag}" in text), "")
  line = " ".join(example.replace("\\", " ").split())
  return f"--{flag} is missing" + (f"; for example: {line}" if line else "")


def _run_main(main: Callable[[], None]) -> None:
  signal.signal(signal.SIGTERM, _raise_interrupted)
  sys.unraisablehook = _resend_dropped_signal
  xla.silence_slow_alarms()
  xla.enable_compilation_cache()
  xla.keep_channels_last()
  try:
    main()
  except UserError as error:
    _exit_with_error(format_error(error))
  except (RuntimeError, AssertionError) as error:
    # JAX opens its backend where it is first needed, which may be anywhere in the command.
    if not (said := xla.explain_missing_backend()):
      raise
    _exit_with_error(f"{said} ({format_error(error)})" if str(error) else said)
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
  if isinstance(ignored.exc_value, Interrupted):
    again = ignored.exc_value.number
  elif isinstance(ignored.exc_value, KeyboardInterrupt):
    again = signal.SIGINT
  else:
    sys.__unraisablehook__(ignored)
    return
  forget_signals()
  # Later, since here it would be dropped as well.
  threading.Timer(_RESEND_AFTER_S, os.kill, (os.getpid(), again)).start()


def _exit_with_error(message: str) -> NoReturn:
  print(f"error: {escape_controls(message)}", file=sys.stderr)
  sys.exit(2)
