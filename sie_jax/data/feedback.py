"""Feedback: how much an item is like those of its list that answer the query best."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from sie_jax.data.lexical import FieldStatistics, Texts, split_all

# Pairs whose texts or vectors are in memory at a time, whole lists of them.
CHUNK = 65_536

# Vectors of norm 1 that are nearer to their list's mean than this have no direction from it.
_NEAR = 1e-3


class Vectors(NamedTuple):
    """The vectors of N texts: that of text i is `values[place[i]]`, of norm 1."""

    values: Float32[np.ndarray, "D hidden"]
    place: Int[np.ndarray, "N"]


def feedback(
    items: Sequence[str],
    first: Float[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    statistics: FieldStatistics,
) -> Float64[np.ndarray, "N"]:
    """The mean similarity of each item to the others of its query, which a first score weighs:

        f_i = Σ_{j≠i} w_j ⟨x_i, x_j⟩ / Σ_{j≠i} w_j        w_j = exp(first_j)

    x_i is the vector of the item's different words, each with its idf, scaled to norm 1. What the
    best items share is what the query means, whether or not the query says it. No label is read,
    and other queries have no part in it. NaN for the only item of a query; 0 for an item without
    words.

    Source: pseudo-relevance feedback with the list for the documents retrieved, weighted by a
    softmax of the first score as in Lavrenko and Croft, "Relevance-based language models", 2001.

    Args:
      items: the texts of the items of the N pairs.
      first: the score that weighs, standardised within the query.
      query_index: which pairs belong to one query, from 0 up.
      statistics: of the same texts of the whole catalogue.
    """
    found = np.empty(len(items))
    for rows, query in _chunks(query_index):
        texts = split_all([items[row] for row in rows.tolist()])
        found[rows] = _of_words(texts, first[rows], query, statistics)
    return found


def feedback_of_vectors(
    vectors: Vectors, first: Float[np.ndarray, "N"], query_index: Int[np.ndarray, "N"]
) -> Float64[np.ndarray, "N"]:
    """`feedback` of the items' vectors, as they lie around the middle of their list:

        x_i = (v_i - m) / ‖v_i - m‖        m = mean of the query's v_j

    All items of a query are alike, in that they answer it in some way: less their mean, what tells
    them apart is left. 0 for an item nearer to the mean than 1e-3, whose direction from it is
    rounding; NaN for the only item of a query.

    Source: as `feedback`; the mean is taken off as in Mu and Viswanath, "All-but-the-top", 2018,
    here for each list.
    """
    found = np.empty(len(vectors.place))
    for rows, query in _chunks(query_index):
        rows, query = rows[order := np.argsort(query, kind="stable")], query[order]
        size = np.bincount(query)
        starts = np.cumsum(size) - size
        x = vectors.values[vectors.place[rows]].astype(np.float64)
        x -= (np.add.reduceat(x, starts) / size[:, None])[query]
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        x *= np.where(norm > _NEAR, 1 / np.maximum(norm, _NEAR), 0.0)
        weight = _weights(first[rows], query)
        centre = np.add.reduceat(weight[:, None] * x, starts)
        together = np.einsum("nh,nh->n", x, centre[query])
        found[rows] = _mean_of_others(together, (x**2).sum(1), weight, query)
    return found


def _chunks(query_index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of some whole queries at a time, and which of these queries each is of."""
    ends = np.cumsum(np.bincount(query_index)) - 1
    chunk = (ends // CHUNK)[query_index]
    for number in np.unique(chunk):
        rows = np.flatnonzero(chunk == number)
        yield rows, np.unique(query_index[rows], return_inverse=True)[1]


def _weights(first: np.ndarray, query: np.ndarray) -> np.ndarray:
    """exp(first), of which the largest of each query is 1."""
    highest = np.full(int(query.max()) + 1, -np.inf)
    np.maximum.at(highest, query, first)
    return np.asarray(np.exp(np.asarray(first, np.float64) - highest[query]))


def _mean_of_others(
    together: np.ndarray, own: np.ndarray, weight: np.ndarray, query: np.ndarray
) -> np.ndarray:
    """together: Σ_j w_j ⟨x_i, x_j⟩ over the query, its own term included. own: ⟨x_i, x_i⟩."""
    others = np.bincount(query, weights=weight)[query] - weight
    alone = np.bincount(query)[query] == 1
    return np.where(alone, np.nan, (together - weight * own) / np.where(alone, 1.0, others))


def _of_words(
    items: Texts, first: np.ndarray, query: np.ndarray, statistics: FieldStatistics
) -> np.ndarray:
    pair, value, word, width = vectors(items, statistics)
    weight = _weights(first, query)
    # Σ_j w_j x_j of each query, at the words that its items have
    keys, at = np.unique(query[pair] * width + word, return_inverse=True)
    centre = np.bincount(at, weights=weight[pair] * value, minlength=len(keys))
    together = np.bincount(pair, weights=value * centre[at], minlength=len(first))
    own = np.bincount(pair, weights=value**2, minlength=len(first))
    return _mean_of_others(together, own, weight, query)


def vectors(
    items: Texts, statistics: FieldStatistics
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The pair, the value and the word of each entry of x, and how many words there are."""
    different = [dict.fromkeys(words) for words in items.words]
    vocabulary: dict[str, int] = {}
    for title in different:
        for word in title:
            vocabulary.setdefault(word, len(vocabulary))
    idf = statistics.idf(vocabulary)
    sizes = np.array([len(title) for title in different], np.int64)
    words = np.array([vocabulary[word] for title in different for word in title], np.int64)
    of = np.repeat(np.arange(len(sizes)), sizes)
    values = (
        idf[words] / np.sqrt(np.bincount(of, weights=idf[words] ** 2, minlength=len(sizes)))[of]
    )
    # the entries of pair i are those of its item
    entries = sizes[items.place]
    pair = np.repeat(np.arange(len(entries)), entries)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(entries) - entries, entries)
    at = (np.cumsum(sizes) - sizes)[items.place][pair] + within
    return pair, values[at], words[at], max(len(vocabulary), 1)
