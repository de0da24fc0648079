"""Computes requests one after the other in a thread, and keeps their answers until they expire."""

import queue
import shutil
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.deadline import Deadline
from attn_unet_jax.runtime.errors import format_error
from attn_unet_jax.serving.errors import RequestError
from attn_unet_jax.serving.options import ServiceOptions
from attn_unet_jax.serving.scan_files import SENT
from attn_unet_jax.serving.segmenter import ScanRequest, ServedAnswer

Segment = Callable[[ScanRequest, Path, Deadline], ServedAnswer]
JobState = Literal["waiting", "running", "done", "failed"]

_SWEEP_EVERY_S = 10.0


@dataclass(eq=False)
class Job:
  """A request, and its answer once there is one.

  Attributes:
    id: what clients call it by.
    folder: where its scan and its answer lie.
    request: what is asked for.
    deadline: when it is broken off.
    answer: the answer, or the `RequestError` that there is instead.
    running: whether it is computed now.
    removed: whether nobody wants it any more.
    ended: when it was done, by the monotonic clock; None before.
  """

  id: str
  folder: Path
  request: ScanRequest
  deadline: Deadline
  answer: "Future[ServedAnswer]" = field(default_factory=Future)
  running: bool = False
  removed: bool = False
  ended: float | None = None

  @property
  def state(self) -> JobState:
    """What became of it."""
    if not self.answer.done():
      return "running" if self.running else "waiting"
    return "failed" if self.answer.exception() else "done"


class JobQueue:
  """A queue of requests with one thread that computes them; `close` ends it.

  Args:
    segment: computes an answer into a folder.
    options: the limits.
    folder: an empty folder.
    sweep: is called now and then.
  """

  def __init__(
    self, segment: Segment, options: ServiceOptions, folder: Path, sweep: Callable[[], None]
  ):
    self._segment, self._options, self._folder, self._sweep = segment, options, folder, sweep
    self._waiting: queue.Queue[Job | None] = queue.Queue()
    self._jobs: dict[str, Job] = {}
    # `add` counts the jobs while it holds it, and counting takes it again.
    self._lock = threading.RLock()
    # If the server ends by an error before `close`, the process must not wait for this thread.
    self._thread = threading.Thread(target=self._work, name="segmenter", daemon=True)
    self._thread.start()

  def check_room(self) -> None:
    """Refuses a request for which there is no place.

    Raises:
      RequestError: as many wait as may.
    """
    if self.count_waiting() >= self._options.max_waiting:
      raise RequestError(
        503, f"{self._options.max_waiting} scans are waiting already; send this one again later"
      )

  def make_folder(self) -> Path:
    """Makes the folder of a job to come, and `SENT` in it; its name will be the job's."""
    # Random: whoever knows an id gets the mask.
    folder = self._folder / uuid.uuid4().hex
    (folder / SENT).mkdir(parents=True)
    return folder

  def add(self, request: ScanRequest, folder: Path) -> Job:
    """Puts a request behind the others.

    Args:
      request: what is asked for.
      folder: of `make_folder`.

    Raises:
      RequestError: there is no place.
    """
    job = Job(folder.name, folder, request, Deadline(self._options.max_seconds))
    with self._lock:  # so that two that come at once do not both get the last place
      self.check_room()
      self._jobs[job.id] = job
      self._waiting.put(job)
    return job

  def find(self, job_id: str) -> Job:
    """Returns a job.

    Raises:
      RequestError: there is none, or it has expired.
    """
    with self._lock:
      job = self._jobs.get(job_id)
    if job is None:
      raise self.missing(job_id)
    return job

  def missing(self, job_id: str) -> RequestError:
    """Returns what is said of a job that is not there."""
    return RequestError(404, f"no job {job_id!r}; answers are kept for a while only")

  def count_waiting(self) -> int:
    """Counts the requests that are neither done nor computed now, nor removed."""
    with self._lock:
      return sum(job.state == "waiting" for job in self._jobs.values())

  def count_ahead(self, job: Job) -> int:
    """Counts the jobs that are computed before one that waits."""
    with self._lock:
      # A dict keeps the order in which they came, and that is the order of the queue.
      ids = [one.id for one in self._jobs.values() if not one.answer.done()]
    return ids.index(job.id) if job.id in ids else 0

  def remove(self, job: Job) -> None:
    """Forgets a job with all its files; one that is computed is broken off first."""
    # Before the answer is looked at; the thread looks at both the other way round, so one removes.
    job.removed = True
    job.deadline.cancel()
    with self._lock:  # so that one that waits does not begin meanwhile
      self._jobs.pop(job.id, None)
      is_computed = job.running and not job.answer.done()
    # One that waits would keep its scan until its turn, and many that come and go fill the disk.
    if not is_computed:  # else the thread does it, when it is through with the files
      shutil.rmtree(job.folder, ignore_errors=True)

  def break_off(self) -> None:
    """Asks for all to be broken off; whoever waits for an answer learns that there is none."""
    for job in list(self._jobs.values()):  # without the lock, which a signal's handler cannot get
      job.deadline.cancel()

  def close(self) -> None:
    """Breaks off what is computed and ends the thread."""
    with self._lock:
      jobs = list(self._jobs.values())
    for job in jobs:
      self.remove(job)
    self._waiting.put(None)
    self._thread.join()

  def _work(self) -> None:
    while True:
      try:
        # Answers also expire while no request comes.
        job = self._waiting.get(timeout=_SWEEP_EVERY_S)
      except queue.Empty:
        self._remove_expired()
        continue
      if job is None:
        return
      self._answer(job)
      self._remove_expired()

  def _answer(self, job: Job) -> None:
    with self._lock:
      job.running = True
    answer: ServedAnswer | RequestError
    # The deadline of one that was removed is over, and ends it before it reads a file.
    try:
      answer = self._segment(job.request, job.folder, job.deadline)
    except RequestError as error:
      print_line(f"{error.status} {format_error(error)}")
      answer = error
    # Whatever it is, the next scan is answered.
    except BaseException:
      traceback.print_exc()
      answer = RequestError(500, "a fault of the service; its log has more")
    # Before the answer is known: whoever has it can rely on the scan being gone.
    shutil.rmtree(job.folder / SENT, ignore_errors=True)
    # The clock of the day may be set meanwhile, and would expire answers at once or never.
    job.ended = time.monotonic()
    if isinstance(answer, RequestError):
      job.answer.set_exception(answer)
    else:
      job.answer.set_result(answer)
    if job.removed:
      shutil.rmtree(job.folder, ignore_errors=True)

  def _remove_expired(self) -> None:
    oldest = time.monotonic() - self._options.expiry_seconds
    with self._lock:
      jobs = list(self._jobs.values())
    for job in jobs:
      if job.ended is not None and job.ended < oldest:
        self.remove(job)
    self._sweep()
