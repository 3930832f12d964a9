"""Lists in which the next item is good and unlike those above it."""

import numpy as np
from jaxtyping import Float, Float64, Int


def marginal(
    scores: Float[np.ndarray, "n"],
    vectors: Float[np.ndarray, "n H"],
    *,
    share: float,
    depth: int,
) -> tuple[Int[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
    """The order of maximal marginal relevance, and how like an earlier one each item is.

    The first k = min(depth, n) places are taken in turn by the item with the highest

        (1 − λ) r_i − λ max_{j above} ⟨x_i, x_j⟩

    with λ the share and r the scores, brought to [0, 1] over the list (all 1 where they are equal).
    Among equals the first of the list is taken. λ = 0 leaves the order of the scores. The likeness
    of the first item is 0.

    Args:
        vectors: Of norm 1.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering
    documents and producing summaries", 1998.
    """
    low, high = scores.min(), scores.max()
    relevance = (scores - low) / (high - low) if high > low else np.ones(len(scores))
    nearest, free = np.zeros(len(scores)), np.ones(len(scores), bool)
    places, likeness = [], []
    for _ in range(min(depth, len(scores))):
        value = np.where(free, (1 - share) * relevance - share * nearest, -np.inf)
        one = int(value.argmax())
        places.append(one)
        likeness.append(float(nearest[one]))
        free[one] = False
        nearest = np.maximum(nearest, vectors @ vectors[one])
    return np.array(places, np.int64), np.array(likeness)


def within(lists: Int[np.ndarray, "Q k"], vectors: Float[np.ndarray, "I H"]) -> float:
    """The mean of 1 − ⟨x_i, x_j⟩ over the pairs of each list, and over the lists.

    Lists of one item are left out; NaN without others.
    """
    found = []
    for row in lists:
        own = vectors[row[row >= 0]]
        if len(own) > 1:
            products = own @ own.T
            pairs = len(own) * (len(own) - 1)
            found.append(1 - (products.sum() - np.trace(products)) / pairs)
    return float(np.mean(found)) if found else float("nan")
