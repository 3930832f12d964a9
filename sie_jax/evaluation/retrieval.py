"""What is found among a whole catalogue: metrics of lists of items, and of what lists do to it.

Nothing is evaluated on a sample of the items: on sampled negatives the order of two recommenders
may be another one than on the catalogue (Krichene and Rendle, "On sampled metrics for item
recommendation", 2020).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

NOTHING = -1
"""Stands in a list behind its last item."""


class Wanted(NamedTuple):
    """The items that each query (or user) is to be given: M pairs, each once.

    query: in `[0, Q)`. item: a number, 0 or more. gain: above 0, 1 each where None.
    """

    query: Int[np.ndarray, "M"]
    item: Int[np.ndarray, "M"]
    gain: Float[np.ndarray, "M"] | None = None


def per_query(
    lists: Int[np.ndarray, "Q k"], wanted: Wanted, *, depths: Sequence[int]
) -> dict[str, Float64[np.ndarray, "Q"]]:
    """The metrics of every query's list at each depth d.

    With h_r = 1 where the item at rank r is wanted and g_r its gain (0 where it is not), W the
    number of wanted items, and P(r) = Σ_{s ≤ r} h_s / r:

        recall@d = Σ_{r ≤ d} h_r / W
        hit@d    = max_{r ≤ d} h_r
        mrr@d    = 1 / min {r ≤ d : h_r = 1}, 0 where there is none
        ndcg@d   = Σ_{r ≤ d} g_r / log2(r + 1)  /  the same sum of the W gains in descending order
        map@d    = Σ_{r ≤ d} h_r P(r) / min(d, W)

    They are those of RecBole and, but for the cut of map's denominator, of trec_eval; all lie in
    [0, 1]. A query without a wanted item is left out: NaN.

    Args:
        lists: Items in the order of their ranks, each once, NOTHING behind the last.
        wanted: What is to be found.
        depths: Each at most k: a list that was cut shorter could hold what it does not show.

    Raises:
        ValueError: A depth is beyond the lists, or an item stands in a list twice.

    Source: Järvelin and Kekäläinen 2002; RecBole 1.2, `recbole.evaluator.metrics`.
    """
    queries, length = lists.shape
    if max(depths) > length or min(depths) < 1:
        raise ValueError(f"depths are {tuple(depths)}, and the lists have {length} places")
    ordered = np.sort(lists, 1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NOTHING)).any():
        raise ValueError("an item stands in a list twice")
    gains = _gains(lists, wanted)
    hits = gains > 0
    counts = np.bincount(wanted.query, minlength=queries).astype(np.float64)
    best = _best(wanted, queries, max(depths))
    ranks = np.arange(1, length + 1)
    discounts = 1 / np.log2(ranks + 1)
    precision = hits.cumsum(1) / ranks
    found: dict[str, np.ndarray] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for depth in depths:
            top = hits[:, :depth]
            first = np.where(top.any(1), 1 / (1 + top.argmax(1)), 0.0)
            dcg = gains[:, :depth] @ discounts[:depth]
            ideal = best[:, :depth] @ discounts[:depth]
            found |= {
                f"recall@{depth}": top.sum(1) / counts,
                f"hit@{depth}": np.where(top.any(1), 1.0, 0.0),
                f"mrr@{depth}": first,
                f"ndcg@{depth}": dcg / ideal,
                f"map@{depth}": (top * precision[:, :depth]).sum(1) / np.minimum(depth, counts),
            }
    return {name: np.where(counts > 0, values, np.nan) for name, values in found.items()}


def _gains(lists: np.ndarray, wanted: Wanted) -> np.ndarray:
    """The gain of each place [Q, k], 0 where its item is not wanted."""
    if not len(wanted.query):
        return np.zeros(lists.shape)
    gain = np.ones(len(wanted.query)) if wanted.gain is None else wanted.gain
    span = 1 + max(int(lists.max(initial=0)), int(wanted.item.max()))
    keys = wanted.query.astype(np.int64) * span + wanted.item
    order = np.argsort(keys)
    asked = np.arange(len(lists))[:, None] * span + lists
    place = np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)
    there = (keys[order[place]] == asked) & (lists != NOTHING)
    return np.where(there, gain[order[place]], 0.0)


def _best(wanted: Wanted, queries: int, depth: int) -> np.ndarray:
    """The gains of each query's wanted items, the highest first [Q, depth], 0 behind the last."""
    gain = np.ones(len(wanted.query)) if wanted.gain is None else wanted.gain
    order = np.lexsort((-gain, wanted.query))
    query = wanted.query[order]
    starts = np.searchsorted(query, np.arange(queries))
    rank = np.arange(len(query)) - starts[query]
    best = np.zeros((queries, depth))
    inside = rank < depth
    best[query[inside], rank[inside]] = gain[order][inside]
    return best


def of_lists(
    lists: Int[np.ndarray, "Q k"],
    *,
    items: int,
    popularity: Int[np.ndarray, "I"],
    vectors: Float[np.ndarray, "I H"] | None = None,
) -> dict[str, float]:
    """What all lists together do to the catalogue of I items, numbered from 0.

        coverage    the share of the items that stand in some list
        gini        Σ_i (2i − I − 1) c_i / (I Σ c), of the counts c_1 ≤ … ≤ c_I of the items in the
                    lists: 0 where all are shown equally often, near 1 where few are
        novelty     the mean over places of −log2((n_i + 1) / (N + I)), n_i the events of the item
                    and N of all: bits by which what is shown is unexpected
        popularity  the mean over places of n_i
        diversity   the mean over lists of 1 − the mean cosine of two of its items, where there are
                    vectors

    NOTHING counts nowhere. NaN where no list has an item, of diversity where none has two.

    Source: Castells, Hurley and Vargas, "Novelty and diversity in recommender systems", 2015;
    RecBole 1.2 (its Gini index and its average popularity).
    """
    shown = lists[lists != NOTHING]
    counts = np.sort(np.bincount(shown, minlength=items)).astype(np.float64)
    if not len(shown):
        names = ("coverage", "gini", "novelty", "popularity")
        return dict.fromkeys((*names, *(["diversity"] * (vectors is not None))), float("nan"))
    ranks = np.arange(1, items + 1)
    chance = (popularity + 1) / (popularity.sum() + items)
    found = {
        "coverage": float((counts > 0).mean()),
        "gini": float(((2 * ranks - items - 1) * counts).sum() / (items * counts.sum())),
        "novelty": float(-np.log2(chance[shown]).mean()),
        "popularity": float(popularity[shown].mean()),
    }
    if vectors is not None:
        found["diversity"] = _diversity(lists, vectors)
    return found


def _diversity(lists: np.ndarray, vectors: np.ndarray) -> float:
    """1 − the mean cosine of two items of a list: of unit vectors Σ_{i≠j} v_i·v_j = ‖Σv‖² − n."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    there = lists != NOTHING
    total = np.einsum("qkh,qk->qh", unit[np.where(there, lists, 0)], there.astype(unit.dtype))
    own = np.einsum("qk,qk->q", (norms[np.where(there, lists, 0), 0] > 0) * 1.0, there * 1.0)
    size = there.sum(1)
    two = size > 1
    if not two.any():
        return float("nan")
    pairs = (size * (size - 1))[two]
    return float((1 - ((total**2).sum(1) - own)[two] / pairs).mean())


def exposure(
    lists: Int[np.ndarray, "Q k"], groups: Int[np.ndarray, "I"], *, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How much of all attention each group of items gets, beside its share of the catalogue.

    The item at rank r gets 1/log2(r + 1), as nDCG discounts.

    Args:
        lists: As in `per_query`, of items numbered from 0.
        groups: The group of each item, a place in `names`.

    Returns:
        `{name: {"exposure", "items"}}`: shares that sum to 1 each.

    Source: Singh and Joachims, "Fairness of exposure in rankings", 2018.
    """
    discounts = np.broadcast_to(1 / np.log2(np.arange(2, lists.shape[1] + 2)), lists.shape)
    there = lists != NOTHING
    seen = np.bincount(groups[lists[there]], discounts[there], minlength=len(names))
    share = np.bincount(groups, minlength=len(names)) / len(groups)
    total = seen.sum() or 1.0
    return {
        name: {"exposure": float(seen[place] / total), "items": float(share[place])}
        for place, name in enumerate(names)
    }
