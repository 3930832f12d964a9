"""A fixture for test files that compile tiny models: it skips the optimisations of XLA."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import pytest


@contextmanager
def quickly() -> Iterator[None]:
    """Compiles what is new inside the block with few optimisations."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    """Compiling such models takes all the time, and optimising them saves none."""
    with quickly():
        yield
