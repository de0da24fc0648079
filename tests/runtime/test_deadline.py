"""Work is broken off when its time is over, in its own thread alone."""

import threading

import pytest

from attn_unet_jax.runtime.deadline import Deadline, check_deadline, keep_deadline
from attn_unet_jax.runtime.errors import UserError


def test_work_goes_on_until_its_time_is_over():
  check_deadline()  # without a deadline
  with keep_deadline(Deadline(60)):
    check_deadline()
  with keep_deadline(Deadline(0)), pytest.raises(UserError, match="not done within 0 s"):
    check_deadline()
  check_deadline()


def test_work_is_cancelled_from_another_thread():
  deadline = Deadline(60)
  with keep_deadline(deadline):
    check_deadline()
    thread = threading.Thread(target=deadline.cancel)
    thread.start()
    thread.join()
    with pytest.raises(UserError, match="no longer wanted"):
      check_deadline()


def test_a_deadline_is_of_one_thread():
  failed = []

  def check():
    try:
      check_deadline()
    except UserError as error:
      failed.append(error)

  with keep_deadline(Deadline(0)):
    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
  assert not failed
