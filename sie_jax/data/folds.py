"""Folds by query: which pairs a model is kept from, so that its opinion of them is its own."""

from collections.abc import Sequence

import numpy as np


def assign(queries: Sequence[str], *, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, int32 `[N]` in [0, folds), all rows of one query in one fold.

    Queries are shuffled by `seed` and dealt out by turns, so that the numbers of queries in two
    folds differ by at most one. The order of the rows plays no part.

    Raises ValueError where there are fewer queries than folds, or fewer than two folds.
    """
    distinct, of_row = np.unique(np.asarray(queries, str), return_inverse=True)
    if not 2 <= folds <= len(distinct):
        raise ValueError(f"{folds} folds of {len(distinct)} queries: give 2 to {len(distinct)}")
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = np.empty(len(distinct), np.int32)
    fold[order] = np.arange(len(distinct)) % folds
    return fold[of_row]
