"""A fixture for test files whose models are so tiny that optimising them gains nothing."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    """These models are tiny: compiling them takes all the time, and optimising them gains none."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
