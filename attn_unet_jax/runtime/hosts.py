"""Several hosts train one run: one process on each, joined by `jax.distributed`.

All run the same program on the same state, and every host cuts the patches that its devices train
on. What one process must do alone, such as validating, logging or making a folder, the first does
while the others wait for its answer (`on_first`). With one process all of this costs nothing.
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

SEPARATE_RUNS_HINT = "for a run on each, give --coordinator=none"  # of refusals

_COUNT_VARIABLES = (
  "SLURM_STEP_NUM_TASKS",
  "OMPI_COMM_WORLD_SIZE",
)  # of processes, as launchers set them
_HOSTNAMES_VARIABLE = "TPU_WORKER_HOSTNAMES"  # of a TPU slice's hosts, as GKE sets it
_ANSWER_KEY, _LEFT_KEY = "attn_unet_jax/answer/", "attn_unet_jax/left"  # keys
_GRACE_S = 20.0  # seconds that a process has to leave by itself once another left with an error

_answer_numbers = itertools.count()


@contextmanager
def join_hosts(
  coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[None]:
  """Joins the hosts of a run; inside, who leaves with an error takes the others along.

  Args:
    coordinator: HOST:PORT of process 0; 'auto': as the cluster tells; 'none': this process is
      alone; None: 'auto' where the launcher says that there are several processes, else 'none'.
    processes: how many there are; with HOST:PORT.
    process: the number of this one, from 0; with HOST:PORT.

  Raises:
    UserError: what is given is incomplete, or the others could not be reached.
  """
  address = _initialize_arguments(coordinator, processes, process)
  if address is None:
    yield
    return
  # JAX would take SIGTERM for itself; the loop agrees on a signal by `Agreement`.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(**address)
  except (RuntimeError, ValueError, OSError) as error:
    raise UserError(
      f"--coordinator={coordinator or 'auto'}: the hosts of the run did not come together "
      f"({error}); without a cluster that tells, give --coordinator=HOST:PORT, --processes and "
      "--process on each"
    ) from error
  if not is_primary():
    console.silence_output()
  leaving = threading.Event()
  follower = threading.Thread(target=_end_with_others, args=[leaving], daemon=True)
  follower.start()
  try:
    yield
  except BaseException as error:
    with suppress(RuntimeError):  # another was first, or the store is gone
      _key_value_store().key_value_set(_LEFT_KEY, str(exit_status(error)))
    raise
  finally:
    leaving.set()
    follower.join()


def _initialize_arguments(
  coordinator: str | None, processes: int | None, process: int | None
) -> dict[str, Any] | None:
  """What `jax.distributed.initialize` is to be given; None where there is nobody to join."""
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
  counts = (os.environ.get(name, "") for name in _COUNT_VARIABLES)
  return any(n.isdigit() and int(n) > 1 for n in counts) or "," in os.environ.get(
    _HOSTNAMES_VARIABLE, ""
  )


def count_processes() -> int:
  """Processes of the run."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_primary() -> bool:
  """Whether this process is the one that writes and prints."""
  return count_processes() == 1 or jax.process_index() == 0


def run_on_primary(work: Callable[..., T], *arguments: Any) -> T:
  """What the first process gets of `work(*arguments)`; the others wait for it, however long.

  To be called by all, in the same order. The answer must be JSON. UserError and Interrupted are
  raised on all.
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
  told = json.loads(_wait_for_answer(key))
  if "error" in told:
    raise UserError(told["error"])
  if "signal" in told:
    raise Interrupted(told["signal"])
  return told["value"]


def open_on_primary(
  opened: Callable[..., AbstractContextManager[T]], *arguments: Any
) -> AbstractContextManager[T | None]:
  """The context that `opened(*arguments)` gives on the first process, nothing on the others."""
  return opened(*arguments) if is_primary() else nullcontext()


def check_same_on_hosts(what: str, text: str, remedy: str) -> None:
  """Compares something between the hosts.

  Raises:
    UserError: this host's is not the first one's; names `what`, and the `remedy`.
  """
  of_first = run_on_primary(lambda: text)
  same = all_gather(text == of_first)
  if not same.all():
    raise UserError(
      f"{what}: not the same on process 0 and process {int(np.argmin(same))}; {remedy}"
    )


def check_shared_path(path: Path) -> None:
  """Whether all hosts see a file that the first has written.

  Raises:
    UserError: one does not.
  """
  seen = all_gather(path.exists())
  if not seen.all():
    raise UserError(
      f"{path}: process {int(np.argmin(seen))} does not see it; --workdir must lie on a file "
      f"system that all hosts share, or, {SEPARATE_RUNS_HINT}"
    )


def all_gather(value: Any) -> np.ndarray:
  """A number of every process, `[processes]`."""
  return np.ravel(multihost_utils.process_allgather(np.asarray(value)))


def broadcast_from_primary(tree: Tree) -> Tree:
  """The arrays of the first process, on all; hosts of several kinds round differently.

  To be called by all, with arrays of the same shapes.
  """
  return tree if count_processes() == 1 else multihost_utils.broadcast_one_to_all(tree)


class SignalAgreement:
  """How processes come to leave at the same step when a signal reaches one of them.

  Each call sends this process's signal to all, and returns what was sent by the call before: so
  the devices never wait for the hosts. All processes must call as often.
  """

  def __init__(self) -> None:
    self._pending: jax.Array | None = None
    if count_processes() > 1:
      mesh = Mesh(np.array(jax.devices()), "device")
      self._each = NamedSharding(mesh, PartitionSpec("device"))
      everywhere = NamedSharding(mesh, PartitionSpec())
      self._greatest = jax.jit(jnp.max, out_shardings=everywhere)

  def __call__(self, number: int | None, *, now: bool = False) -> int | None:
    """The signal that all heed, if there is one; with `now` that of this call."""
    if count_processes() == 1:
      return number
    here = np.full(jax.local_device_count(), number or 0, np.int32)
    sent = self._greatest(jax.make_array_from_process_local_data(self._each, here))
    heeded, self._pending = (sent if now else self._pending), sent
    return None if heeded is None else int(heeded) or None


def _key_value_store() -> Any:
  """What hosts tell each other: texts by key, of the service that process 0 runs."""
  return global_state.client


def _publish_answer(key: str, **answer: Any) -> None:
  _key_value_store().key_value_set(key, json.dumps(answer))


def _wait_for_answer(key: str) -> str:
  """Waits a second at a time, so that a signal is heard."""
  while True:
    try:
      return _key_value_store().blocking_key_value_get(key, 1000)
    except RuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise


def _end_with_others(leaving: threading.Event) -> None:
  """Ends this process, whatever it waits for, some time after another left with an error.

  Not if this one is `leaving` by itself.
  """
  ended = None
  while ended is None and not leaving.wait(1):
    with suppress(RuntimeError):  # nobody has left
      ended = int(_key_value_store().key_value_try_get(_LEFT_KEY))
  if leaving.wait(_GRACE_S):
    return
  print("error: another host of the run ended; its output says why", file=sys.stderr, flush=True)
  with suppress(RuntimeError):
    jax.distributed.shutdown()  # who left waits for this one
  os._exit(ended or 1)
