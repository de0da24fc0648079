"""Joins the hosts that train one run: one process on each, connected by `jax.distributed`.

All run one program on one state, and every host crops the patches that its devices train on. What
only one process must do, such as validating, logging or making a folder, the primary process
(number 0) does while the others wait for its answer (`run_on_primary`). With one process none of
this costs anything.
"""

import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # the only way to the store that hosts share
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from attn_unet_jax.runtime import console
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted, exit_status

T = TypeVar("T")
Tree = TypeVar("Tree")

SEPARATE_RUNS_HINT = "for a run on each, give --coordinator=none"  # the end of several refusals

# Launchers tell the number of processes: Slurm, and mpirun. SLURM_NTASKS would be wrong: a shell
# within an allocation has it too.
_COUNT_VARIABLES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_HOSTNAMES_VARIABLE = "TPU_WORKER_HOSTNAMES"  # of a TPU slice's hosts, as GKE sets it
_ANSWER_KEY, _LEFT_KEY = "attn_unet_jax/answer/", "attn_unet_jax/left"
# A process that waits in a collective operation for one that left would wait forever. It has so
# many seconds to leave by itself.
_GRACE_S = 20.0

_answer_numbers = itertools.count()


@contextmanager
def join_hosts(
  coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[None]:
  """Joins the hosts of a run; within this context an error on one host ends all of them.

  Args:
    coordinator: HOST:PORT of process 0; 'auto' asks the cluster; 'none' joins nobody; None means
      'auto' if the launcher says that there are several processes, else 'none'.
    processes: the number of processes; only with HOST:PORT.
    process: the number of this process, from 0; only with HOST:PORT.

  Raises:
    UserError: the arguments are incomplete, or the other hosts could not be reached.
  """
  address = _initialize_arguments(coordinator, processes, process)
  if address is None:
    yield
    return
  # JAX would handle SIGTERM itself. The training loop uses `SignalAgreement` instead.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(**address)
  except (RuntimeError, ValueError, OSError) as error:
    raise UserError(
      f"--coordinator={coordinator or 'auto'}: the hosts of the run did not come together "
      f"({error}); if the cluster does not name them, give --coordinator=HOST:PORT, --processes "
      "and --process on each"
    ) from error
  if not is_primary():
    console.silence_output()
  leaving = threading.Event()
  follower = threading.Thread(target=_end_with_others, args=[leaving], daemon=True)
  follower.start()
  try:
    yield
  except BaseException as error:
    with suppress(RuntimeError):  # another process was first, or the store is gone
      _key_value_store().key_value_set(_LEFT_KEY, str(exit_status(error)))
    raise
  finally:
    leaving.set()
    follower.join()


def _initialize_arguments(
  coordinator: str | None, processes: int | None, process: int | None
) -> dict[str, Any] | None:
  """Returns the arguments of `jax.distributed.initialize`; None if there is nobody to join."""
  given = f"--coordinator={coordinator}, --processes={processes}, --process={process}"
  if coordinator in (None, "auto", "none"):
    if processes is not None or process is not None:
      raise UserError(f"{given}: --processes and --process need --coordinator=HOST:PORT")
    return {} if coordinator == "auto" or (not coordinator and _is_one_of_several()) else None
  if processes is None or process is None:
    raise UserError(f"{given}: give --processes=N and, from 0 to N - 1, --process=I too")
  if not re.fullmatch(r".+:\d+", coordinator or ""):
    raise UserError(f"{given}: the coordinator must be HOST:PORT, of process 0, auto or none")
  if not 0 <= process < processes:
    raise UserError(f"{given}: processes are counted from 0 to --processes - 1")
  return {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}


def _is_one_of_several() -> bool:
  """Returns whether a launcher has started several processes."""
  counts = (os.environ.get(name, "") for name in _COUNT_VARIABLES)
  return any(n.isdigit() and int(n) > 1 for n in counts) or "," in os.environ.get(
    _HOSTNAMES_VARIABLE, ""
  )


def count_processes() -> int:
  """Returns the number of processes of the run."""
  # `process_count` alone would open the devices, perhaps before flags for them are set.
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_primary() -> bool:
  """Returns whether this process is the one that writes and prints."""
  return count_processes() == 1 or jax.process_index() == 0


def run_on_primary(work: Callable[..., T], *arguments: Any) -> T:
  """Runs `work(*arguments)` on the primary process and returns its answer on all.

  The others wait for it, however long it takes. All processes must call this, in one order. With
  several processes the answer must be JSON. UserError and Interrupted are raised on all.
  """
  if count_processes() == 1:
    return work(*arguments)
  key = f"{_ANSWER_KEY}{next(_answer_numbers)}"
  if is_primary():
    try:
      value = work(*arguments)
    except UserError as error:
      _publish_answer(key, error=str(error))
      raise
    except Interrupted as error:
      _publish_answer(key, signal=error.number)
      raise
    _publish_answer(key, value=value)
    return value
  answer = json.loads(_wait_for_answer(key))
  if "error" in answer:
    raise UserError(answer["error"])
  if "signal" in answer:
    raise Interrupted(answer["signal"])
  answered: T = answer["value"]
  return answered


def open_on_primary(
  make_context: Callable[..., AbstractContextManager[T]], *arguments: Any
) -> AbstractContextManager[T | None]:
  """Opens the context `make_context(*arguments)` on the primary process, and none on the others."""
  return make_context(*arguments) if is_primary() else nullcontext()


def check_same_on_hosts(what: str, text: str, remedy: str) -> None:
  """Checks that a text, such as a config, is equal on all hosts.

  Args:
    what: what the text is, for the message.
    text: this host's text.
    remedy: the way out, for the message.

  Raises:
    UserError: a host's text differs from that of the primary process.
  """
  primary_text = run_on_primary(lambda: text)
  same = all_gather(text == primary_text)
  if not same.all():
    raise UserError(
      f"{what}: not the same on process 0 and process {int(np.argmin(same))}; {remedy}"
    )


def check_shared_path(path: Path) -> None:
  """Checks that all hosts see a file that the primary process has written.

  Raises:
    UserError: a host does not see it.
  """
  seen = all_gather(path.exists())
  if not seen.all():
    raise UserError(
      f"{path}: process {int(np.argmin(seen))} does not see it; --workdir must lie on a file "
      f"system that all hosts share, or, {SEPARATE_RUNS_HINT}"
    )


def all_gather(value: Any) -> np.ndarray:
  """Gathers a number of every process, `[processes]`."""
  return np.ravel(multihost_utils.process_allgather(np.asarray(value)))


def broadcast_from_primary(tree: Tree) -> Tree:
  """Broadcasts the arrays of the primary process to all.

  All processes must call this, with arrays of equal shapes.
  """
  return tree if count_processes() == 1 else multihost_utils.broadcast_one_to_all(tree)


class SignalAgreement:
  """An agreement of all processes to stop at one step when a signal reaches one of them.

  Each call sends this process's signal to all and returns what the call before has sent, so the
  devices never wait for the hosts. All processes must make the same number of calls.
  """

  def __init__(self) -> None:
    self._pending: jax.Array | None = None
    if count_processes() > 1:
      mesh = Mesh(np.array(jax.devices()), "device")
      self._each = NamedSharding(mesh, PartitionSpec("device"))
      everywhere = NamedSharding(mesh, PartitionSpec())
      # No signal is 0, so the maximum is a signal if any process has one.
      self._greatest = jax.jit(jnp.max, out_shardings=everywhere)

  def __call__(self, number: int | None, *, now: bool = False) -> int | None:
    """Returns the signal that all processes obey; None if there is none.

    Args:
      number: the signal that has reached this process, if one has.
      now: waits for what this call sends, instead of returning what the call before has sent.
    """
    if count_processes() == 1:
      return number
    local = np.full(jax.local_device_count(), number or 0, np.int32)
    sent = self._greatest(jax.make_array_from_process_local_data(self._each, local))
    agreed, self._pending = (sent if now else self._pending), sent
    return None if agreed is None else int(agreed) or None


def _key_value_store() -> Any:
  """Returns the client of the store of texts by key that process 0 keeps for all."""
  return global_state.client


def _publish_answer(key: str, **answer: Any) -> None:
  _key_value_store().key_value_set(key, json.dumps(answer))


def _wait_for_answer(key: str) -> str:
  """Waits for the primary process's answer, however long it works."""
  while True:
    try:
      # A second at a time: Python handles signals only between two calls.
      return str(_key_value_store().blocking_key_value_get(key, 1000))
    except RuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise


def _end_with_others(leaving: threading.Event) -> None:
  """Ends this process some time after another left with an error, whatever it waits for.

  Args:
    leaving: is set when this process leaves by itself, which ends the watch.
  """
  ended = None
  while ended is None and not leaving.wait(1):
    with suppress(RuntimeError):  # nobody has left
      ended = int(_key_value_store().key_value_try_get(_LEFT_KEY))
  if leaving.wait(_GRACE_S):
    return
  print("error: another host of the run ended; its output says why", file=sys.stderr, flush=True)
  with suppress(RuntimeError):
    jax.distributed.shutdown()  # the process that left waits for this one to disconnect
  # The main thread hangs in a collective operation, which no exception reaches.
  os._exit(ended or 1)
