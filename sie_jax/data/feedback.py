"""Feedback: how much an item is like those of its list that answer the query best by words."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from sie_jax.data.lexical import FieldStatistics, Texts, split_all

# Pairs whose titles are split into words at a time, whole lists of them; it bounds memory.
CHUNK = 65_536


def feedback(
    titles: Sequence[str],
    first: Float[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    statistics: FieldStatistics,
) -> Float64[np.ndarray, "N"]:
    """The mean similarity of each title to the others of its query, which a first score weighs:

        f_i = Σ_{j≠i} w_j ⟨x_i, x_j⟩ / Σ_{j≠i} w_j        w_j = exp(first_j)

    x_i is the vector of the title's different words, each with its idf, scaled to norm 1. What the
    best titles share is what the query means, whether or not the query says it. No label is read,
    and other queries have no part in it. NaN for the only item of a query; 0 for a title without
    words.

    Source: pseudo-relevance feedback with the list for the documents retrieved, weighted by a
    softmax of the first score as in Lavrenko and Croft, "Relevance-based language models", 2001.

    Args:
      titles: the texts of the N pairs.
      first: the score that weighs, standardised within the query.
      query_index: which pairs belong to one query, from 0 up.
      statistics: of the titles of the whole catalogue.
    """
    found = np.empty(len(titles))
    ends = np.cumsum(np.bincount(query_index)) - 1
    chunk = (ends // CHUNK)[query_index]
    for number in np.unique(chunk):
        rows = np.flatnonzero(chunk == number)
        here = np.unique(query_index[rows], return_inverse=True)[1]
        texts = split_all([titles[row] for row in rows.tolist()])
        found[rows] = _of_lists(texts, first[rows], here, statistics)
    return found


def _of_lists(
    titles: Texts, first: np.ndarray, query: np.ndarray, statistics: FieldStatistics
) -> np.ndarray:
    pair, value, word, width = vectors(titles, statistics)
    size = np.bincount(query)
    highest = np.full(len(size), -np.inf)
    np.maximum.at(highest, query, first)
    weight = np.exp(np.asarray(first, np.float64) - highest[query])
    # Σ_j w_j x_j of each query, at the words that its titles have
    keys, at = np.unique(query[pair] * width + word, return_inverse=True)
    centre = np.bincount(at, weights=weight[pair] * value, minlength=len(keys))
    together = np.bincount(pair, weights=value * centre[at], minlength=len(first))
    own = np.bincount(pair, weights=value**2, minlength=len(first))
    others = np.bincount(query, weights=weight)[query] - weight
    alone = size[query] == 1
    return np.where(alone, np.nan, (together - weight * own) / np.where(alone, 1.0, others))


def vectors(
    titles: Texts, statistics: FieldStatistics
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The pair, the value and the word of each entry of x, and how many words there are."""
    different = [dict.fromkeys(words) for words in titles.words]
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
    # the entries of pair i are those of its title
    entries = sizes[titles.place]
    pair = np.repeat(np.arange(len(entries)), entries)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(entries) - entries, entries)
    at = (np.cumsum(sizes) - sizes)[titles.place][pair] + within
    return pair, values[at], words[at], max(len(vocabulary), 1)
