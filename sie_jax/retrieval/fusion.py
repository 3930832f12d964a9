"""Several lists of one query as one: by their ranks, with equal or with learned weights."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted

CONSTANT = 60.0
"""k of reciprocal rank fusion, as its authors set it."""
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


def fused(
    lists: Sequence[Int[np.ndarray, "Q n"]],
    weights: Sequence[float] | None = None,
    *,
    depth: int,
    constant: float = CONSTANT,
) -> tuple[Int[np.ndarray, "Q depth"], Float64[np.ndarray, "Q depth"]]:
    """Reciprocal rank fusion: the items by Σ_l w_l / (k + rank in list l), and these sums.

    An item that a list does not have gets nothing of it. Equal sums go by the item's number.
    NOTHING stands behind the last item of all lists.

    Args:
        lists: Items in the order of their ranks, NOTHING behind the last.
        weights: One of each list, 1 where None.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
    individual rank learning methods", 2009.
    """
    weights = [1.0] * len(lists) if weights is None else list(weights)
    rows = len(lists[0])
    places = np.full((rows, depth), NOTHING, np.int64)
    sums = np.zeros((rows, depth))
    for row in range(rows):
        items = np.concatenate([one[row][one[row] != NOTHING] for one in lists])
        shares = np.concatenate(
            [
                weight / (constant + 1 + np.arange((one[row] != NOTHING).sum()))
                for one, weight in zip(lists, weights, strict=True)
            ]
        )
        distinct, place = np.unique(items, return_inverse=True)
        total = np.bincount(place, shares, minlength=len(distinct))
        order = np.argsort(-total, kind="stable")[:depth]
        order = order[total[order] > 0]
        places[row, : len(order)] = distinct[order]
        sums[row, : len(order)] = total[order]
    return places, sums


def learned(
    lists: Sequence[Int[np.ndarray, "Q n"]], wanted: Wanted, *, metric: str, depth: int
) -> tuple[list[float], float]:
    """The weights with the highest mean of a metric, and that mean.

    One list after the other is given one of SHARES beside those before it, or takes their place.
    Of equal means the first share wins, so a list that adds nothing has the weight 0.
    """
    weights = [1.0]
    best = _mean(lists[:1], weights, wanted, metric, depth)
    for number in range(2, len(lists) + 1):
        candidates = [[*weights, share] for share in SHARES]
        candidates.append([0.0] * len(weights) + [1.0])
        means = [_mean(lists[:number], one, wanted, metric, depth) for one in candidates]
        best = max(means)
        weights = candidates[means.index(best)]
    return weights, best


def _mean(
    lists: Sequence[np.ndarray],
    weights: Sequence[float],
    wanted: Wanted,
    metric: str,
    depth: int,
) -> float:
    found, _ = fused(lists, weights, depth=depth)
    at = int(metric.partition("@")[2])
    return float(np.nanmean(retrieval.per_query(found, wanted, depths=(at,))[metric]))
