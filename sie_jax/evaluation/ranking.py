"""Ranking metrics per query through Rax: nDCG with linear gains, reciprocal rank, recall."""

import re
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rax
from jaxtyping import Bool, Float, Float64, Int, Int64, Num

from sie_jax.errors import NumericalError

METRICS = ("ndcg@10", "ndcg", "mrr", "recall@10")

# Elements of one padded [q, L] block. It bounds memory: a query of 1,000 items among 10,000 of 10
# is padded among queries of its own length, never the others to its length.
_BLOCK = 1 << 18


def tie_order(example_ids: Sequence[str] | np.ndarray) -> Int64[np.ndarray, "N"]:
    """The place of each example id in ascending order, by which ties of scores break.

    The order is numeric where every id is an integer ("9" before "10"), and the order of Unicode
    code points otherwise. Equal ids share one place.
    """
    ids = [str(example_id) for example_id in example_ids]
    numeric = all(re.fullmatch(r"[+-]?[0-9]+", example_id) for example_id in ids)
    distinct = sorted(set(ids), key=(lambda i: (int(i), i)) if numeric else None)
    place = {example_id: n for n, example_id in enumerate(distinct)}
    return np.fromiter((place[example_id] for example_id in ids), np.int64, len(ids))


def rank_order(
    scores: Float[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    example_ids: Sequence[str] | np.ndarray,
) -> Int64[np.ndarray, "N"]:
    """The pairs, query after query, each query's from its first rank to its last.

    Ranks go by score, highest first; equal scores by ascending example id (`tie_order`; integers
    are taken as they are). No score may be NaN.
    """
    ties = np.asarray(example_ids)
    if not np.issubdtype(ties.dtype, np.integer):
        ties = tie_order(example_ids)
    return np.lexsort((ties, -scores.astype(np.float64), query_index))


def per_query(
    scores: Float[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    gains: Sequence[float] | Num[np.ndarray, "K"],
    query_index: Int[np.ndarray, "N"],
    *,
    num_queries: int,
    example_ids: Sequence[str] | np.ndarray,
    retrieved: Bool[np.ndarray, "N"] | None = None,
) -> dict[str, Float64[np.ndarray, "Q"]]:
    """Computes nDCG, reciprocal rank and recall of every query.

    Items are ranked by score, highest first; equal scores by ascending example id (`tie_order`).
    With g_r the gain of the item at rank r, and R the set of items of the highest grade, K - 1:

        ndcg      = Σ_r g_r / log2(r + 1)  /  the same sum with gains in descending order
        ndcg@10   = the same with both sums over r <= 10
        mrr       = 1 / min {r : item at r in R}        (over all ranks; its mean is the MRR)
        recall@10 = #{r <= 10 : item at r in R} / #R

    Guarantees: values lie in [0, 1], are 1 for items in descending order of their labels (recall@10
    where #R <= 10), do not depend on the order of the rows, and scores matter by their order alone.

    | query                                       | ndcg, ndcg@10 | mrr, recall@10 |
    |---------------------------------------------|---------------|----------------|
    | no item of positive gain, or no items       | NaN           | NaN            |
    | positive gain, but no item of highest grade | defined       | NaN            |

    NaN means "left out": no ranking of such a query is better than another, or, in the second row,
    nothing is relevant, and 0 would measure the judgments rather than the ranking.

    Args:
        scores: Score of each pair.
        labels: Grade of each pair in `[0, K)`, lowest first.
        gains: Gain of each grade, non-negative and non-decreasing.
        query_index: The query of each pair, in `[0, Q)`.
        num_queries: Q.
        example_ids: Ids, distinct within a query. Integers are taken as they are (so `tie_order`
            of the ids can be computed once for many runs).
        retrieved: False for a judged item that the ranking does not have. It is at no rank, and
            counts in the best order, in R and nowhere else; its score is not read. None: all are
            ranked.

    Returns:
        float64 arrays `[Q]` for each of `METRICS`, computed by Rax in float32. Queries are padded
        to the next power of two of their length, in blocks of bounded size.

    Raises:
        NumericalError: A score is NaN.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002;
    linear gains as in Reddy et al., "Shopping Queries Dataset", 2022.
    """
    if np.isnan(scores).any():
        raise NumericalError(
            f"score of example {example_ids[int(np.isnan(scores).argmax())]} is NaN"
        )
    item_gains = np.asarray(gains, np.float32)[labels]
    relevant = labels == len(gains) - 1

    found = np.ones(len(labels), bool) if retrieved is None else retrieved
    order = rank_order(np.where(found, scores, -np.inf), query_index, example_ids)
    lengths = np.bincount(query_index, minlength=num_queries)
    starts = np.cumsum(lengths) - lengths
    result = {name: np.full(num_queries, np.nan) for name in METRICS}
    for queries, length in _blocks(lengths):
        column = np.arange(length)
        where = column < lengths[queries][:, None]
        # A place past the query's end points anywhere; `where` hides it.
        items = order[np.minimum(starts[queries][:, None] + column, len(order) - 1)]
        block_gains = np.where(where, item_gains[items], 0)
        block_relevant = np.where(where, relevant[items], False)
        block_found = np.where(where, found[items], False)
        values = _rax_metrics(block_gains, block_relevant, block_found, where)
        with_gain = (block_gains > 0).any(-1)
        for name, value in values.items():
            defined = with_gain & (block_relevant.any(-1) | name.startswith("ndcg"))
            result[name][queries[defined]] = np.asarray(value)[defined]
    return result


def _blocks(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (queries [q], padded length L) with q · L bounded; the shapes are powers of two.

    The last block of a length repeats a query to fill its shape, so that few shapes are compiled.
    """
    padded = 1 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    for length in np.unique(padded[lengths > 0]).tolist():
        queries = np.flatnonzero((padded == length) & (lengths > 0))
        size = min(max(_BLOCK // length, 1), 1 << (len(queries) - 1).bit_length())
        for start in range(0, len(queries), size):
            block = queries[start : start + size]
            yield np.pad(block, (0, size - len(block)), mode="edge"), length


@jax.jit
def _rax_metrics(
    gains: jax.Array, relevant: jax.Array, found: jax.Array, where: jax.Array
) -> dict[str, jax.Array]:
    """Rax's metrics `[q]` of items `[q, L]` that stand in the order of their ranks.

    What is not found stands last: it counts in the best order, and among the relevant items.
    """
    # Ties are already broken, so Rax gets strictly decreasing scores.
    scores = jnp.broadcast_to(-jnp.arange(gains.shape[-1], dtype=jnp.float32), gains.shape)
    linear = {"where": where, "reduce_fn": None, "gain_fn": lambda gain: gain}
    binary = {"where": where, "reduce_fn": None}
    relevant, hits = (one.astype(jnp.float32) for one in (relevant, relevant & found))

    def ndcg(topn: int | None) -> jax.Array:
        """`rax.ndcg_metric`, but that only what is found counts in the order given."""
        best = rax.dcg_metric(gains, gains, topn=topn, **linear)
        given = rax.dcg_metric(scores, jnp.where(found, gains, 0.0), topn=topn, **linear)
        return given / jnp.where(best == 0.0, 1.0, best)

    def recalled(topn: int) -> jax.Array:
        """`rax.recall_metric`, likewise."""
        number = jnp.sum(relevant, axis=-1, where=where)
        given = jnp.sum(hits[:, :topn], axis=-1, where=where[:, :topn])
        return given / jnp.where(number == 0.0, 1.0, number)

    return {
        "ndcg@10": ndcg(10),
        "ndcg": ndcg(None),
        "mrr": rax.mrr_metric(scores, hits, **binary),
        "recall@10": recalled(10),
    }
