import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def case():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 2, 4, 3)).astype(np.float32)
  return jnp.array(logits), jnp.array(rng.integers(0, 3, (2, 3, 2, 4)), jnp.int32)
