"""Where a build's work is done: in this process, in several, or on Apache Beam.

Each way is a `ForEach`: it applies a function to every item and returns when all are done. What
the function finds out, it leaves in files.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import psutil

from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError

ForEach = Callable[[Callable[[Any], None], Sequence[Any]], None]
# Measured: 0.8 GB for a scan of 512 x 512 x 240; collections have scans of twice that.
_BYTES_PER_WORKER = 2e9
_INSTALL_BEAM = "Apache Beam is not installed; from a clone, pip install -e '.[beam]'"


def choose_worker_count() -> int:
  """Returns one worker for each core that this process may use, as far as memory goes."""
  by_memory = int(psutil.virtual_memory().available / _BYTES_PER_WORKER)
  return max(1, min(count_usable_cores(), by_memory))


def make_local_for_each(workers: int) -> ForEach:
  """Makes a ForEach that works in `workers` processes, or in this one for 1."""

  # Processes and not threads: reading DICOM holds the interpreter's lock and changes the warnings'
  # filters, which threads share.
  def for_each(function: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Applies a function to items, in processes if there are several."""
    # One worker, or one item, needs no other process.
    if min(workers, len(items)) > 1:
      _run_in_processes(function, items, min(workers, len(items)))
    else:
      for item in items:
        function(item)

  return for_each


def make_beam_for_each(runner: Any, options: Any) -> ForEach:
  """Makes a ForEach that works on Apache Beam, whose machines must see the folders of this one.

  Args:
    runner: name or object of a Beam runner; None leaves the choice to the options.
    options: `PipelineOptions`, or None.

  Raises:
    UserError: Beam is not installed, or it knows no such runner.
  """
  beam = _import_beam()

  def for_each(function: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Applies a function to items on the machines of the runner."""
    try:
      pipeline = beam.Pipeline(runner=runner, options=options)
    except (ValueError, ImportError) as error:
      raise UserError(f"--beam_runner={runner}: {error}") from None
    # Without a shuffle Beam would fuse the two steps and do all items on one machine; without the
    # lambda it would take the function's annotations for its own types.
    work = beam.Map(lambda item: function(item))
    _ = pipeline | beam.Create(items) | beam.Reshuffle() | work
    try:
      _run_pipeline(pipeline)
    except RuntimeError as error:
      raise _unwrap_beam_error(error) from None

  return for_each


def parse_beam_options(options: Sequence[str]) -> Any:
  """Parses NAME=VALUE strings into `PipelineOptions`.

  Raises:
    UserError: Beam is not installed, or knows no such option or value.
  """
  _import_beam()
  from apache_beam.options.pipeline_options import PipelineOptions

  where, said = f"--beam_options={','.join(options)}", io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      given = PipelineOptions([f"--{option}" for option in options])
      everything = given.get_all_options(retain_unknown_options=True)
  except SystemExit:  # argparse, after a page of usage
    why = said.getvalue().rpartition("error: ")[2].strip()
    raise UserError(f"{where}: Apache Beam does not take it: {why}") from None
  # Beam keeps what it does not know for its runners, and drops it without a word if they do not
  # know it either.
  if unknown := sorted(everything.keys() - PipelineOptions([]).get_all_options().keys()):
    raise UserError(
      f"{where}: Apache Beam has no option {unknown[0]}; write NAME=VALUE,NAME=VALUE, as its "
      "documentation names them"
    )
  return given


def _import_beam() -> Any:
  disabled = logging.root.manager.disable
  logging.disable(logging.WARNING)  # it warns that it has no Google Cloud
  try:
    import apache_beam
  except ImportError:
    raise UserError(_INSTALL_BEAM) from None
  finally:
    logging.disable(disabled)
  return apache_beam


def _run_pipeline(pipeline: Any) -> None:
  """Runs a pipeline to its end, and cancels it where this process is stopped before."""
  logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it is raised as well
  result = pipeline.run()
  try:
    result.wait_until_finish()
  except BaseException:
    with contextlib.suppress(Exception):  # what stopped this process is what is to be told
      result.cancel()
    raise


def _unwrap_beam_error(error: BaseException) -> BaseException:
  """Returns the error that ended a pipeline, out of those that Beam wraps it into."""
  while "[while running" in str(error) and error.__context__ is not None:
    error = error.__context__
  return error


def _run_in_processes(function: Callable[[Any], None], items: Sequence[Any], workers: int) -> None:
  # Forked from a server that has the imports done: cheap, and safe whatever threads this one has.
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(
    ["tfds_pancreas.checked_builder", "attn_unet_jax.volumes.dicom.read"]
  )
  # Processes that were there before are not this build's to kill.
  others = set(multiprocessing.active_children())
  pool = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
  try:
    # As they are done, not in order: the first failure ends the build at once.
    for future in as_completed([pool.submit(function, item) for item in items]):
      future.result()
  except BaseException as error:
    # A worker may be in the middle of a scan for minutes. What it was writing is not complete and
    # is removed with the folder, so nothing is lost by killing it.
    for process in set(multiprocessing.active_children()) - others:
      process.kill()
    if isinstance(error, BrokenProcessPool):
      raise UserError(
        "a worker process was killed, most likely for want of memory; use fewer --workers"
      ) from None
    raise
  finally:
    pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
  """Makes a worker ignore signals, which reach its parent as well, and end with that parent."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)  # sys.exit would end this thread alone
