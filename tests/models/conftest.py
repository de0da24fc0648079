"""Float64 for tests of identities and gradients: `pytest.mark.usefixtures` of one of these."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def double_precision() -> Iterator[None]:
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def double_precision_throughout() -> Iterator[None]:
  """For the module's own fixtures too."""
  with jax.enable_x64(True):
    yield
