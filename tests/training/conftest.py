"""What tests of whole trainings share: the step of a config is traced once for all of them."""

import functools
from collections.abc import Iterator

import pytest

from attn_unet_jax.training import loop


@pytest.fixture(scope="module")
def shared_steps() -> Iterator[None]:
  """Starts of one config share their step: tracing and lowering it is half of a short run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "compile_step", functools.cache(loop.compile_step))
    yield
