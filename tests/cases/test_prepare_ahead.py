import threading
import time

import pytest

from attn_unet_jax.cases import prepare_ahead as module
from attn_unet_jax.cases.prepare_ahead import prepare_ahead
from attn_unet_jax.runtime.errors import UserError


class Cases(list):
  """Numbers in the place of cases; some wait for the next one, or cannot be read."""

  def __init__(self, count, waiting=(), broken=()):
    super().__init__(range(count))
    self.waiting, self.broken = waiting, broken
    self.begun = [threading.Event() for _ in range(count)]

  def __getitem__(self, index):
    self.begun[index].set()
    if index in self.waiting:
      assert self.begun[index + 1].wait(30)
    if index in self.broken:
      raise UserError(f"case {index}")
    time.sleep(0.02 if self.broken else 0)
    return super().__getitem__(index)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
  monkeypatch.setattr(module, "count_usable_cores", lambda: 2)


def test_cases_come_in_order_and_the_next_is_begun_before_one_is_ready():
  assert list(prepare_ahead(Cases(6, waiting=(0, 3)))) == list(range(6))


def test_not_all_cases_are_read_after_one_that_cannot_be_used():
  cases = Cases(300, broken=(1,))
  with pytest.raises(UserError, match="case 1"):
    list(prepare_ahead(cases))
  assert not cases.begun[-1].is_set()
