"""For tests whose models are so tiny that optimising their programs gains nothing."""

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
    """These models are tiny: compiling them takes all the time, and optimising them gains none."""
    with quickly():
        yield
