from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """Computes a whole file in float64, with few optimisations that would take long to compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", before)
