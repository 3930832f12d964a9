"""Contributions `[B, …]` by leaf: their norms, and whether two trees of sums agree."""

from typing import Any

import jax
import numpy as np


def norms_of(tree: Any) -> np.ndarray:
    """The norm of each row over all leaves, float64 `[B]`."""
    squares = [
        (np.asarray(leaf, np.float64).reshape(len(leaf), -1) ** 2).sum(1)
        for leaf in jax.tree.leaves(tree)
    ]
    return np.sqrt(sum(squares))


def assert_close(found: Any, wanted: Any, scale: float) -> None:
    """To float32's 1e-5 of `scale`, the sum of the norms of all that was added up."""
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)
