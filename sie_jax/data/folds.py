"""Folds by query: which pairs each model does not train on, so that it can judge them."""

from collections.abc import Sequence

import numpy as np


def assign(queries: Sequence[str], *, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, int32 `[N]` in [0, folds), all rows of one query in one fold.

    Queries are shuffled by `seed` and dealt out in turns, so that the numbers of queries in two
    folds differ by at most one. The order of the rows makes no difference.

    Raises ValueError where there are fewer queries than folds, or fewer than two folds.
    """
    distinct, of_row = np.unique(np.asarray(queries, str), return_inverse=True)
    if not 2 <= folds <= len(distinct):
        raise ValueError(f"{folds} folds of {len(distinct)} queries: give 2 to {len(distinct)}")
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = np.empty(len(distinct), np.int32)
    fold[order] = np.arange(len(distinct)) % folds
    return fold[of_row]
