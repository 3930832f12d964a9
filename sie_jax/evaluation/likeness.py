"""What the other items of a query say of a label: those of the same words, and similar ones."""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, Int64
from scipy import sparse

from sie_jax.data import feedback, lexical
from sie_jax.data.cleaning import DIGEST, digest_of
from sie_jax.data.schema import normalise_query
from sie_jax.tables.spool import CHUNK_ROWS, pieces

NEAREST, LEAST = 9, 0.5
"""How many items count as similar at most, and the cosine that they have at least."""
_ROWS = 1024  # of one query's pairs that are compared with all of it at a time


def query_index(pairs: pa.Table) -> Int64[np.ndarray, "N"]:
    """The query of each pair, as places from 0 in the order of their first pairs."""
    places: dict[str, int] = {}
    found = np.empty(pairs.num_rows, np.int64)
    for start, piece in pieces(pairs.select(["query"])):
        encoded = piece["query"].combine_chunks().dictionary_encode()
        queries = [normalise_query(text) for text in encoded.dictionary.to_pylist()]
        place = np.array([places.setdefault(query, len(places)) for query in queries], np.int64)
        found[start : start + piece.num_rows] = place[encoded.indices.to_numpy()]
    return found


def near_duplicates(
    titles: pa.ChunkedArray, query: Int[np.ndarray, "N"], labels: Int[np.ndarray, "N"]
) -> Int64[np.ndarray, "N"]:
    """The group of each pair whose label another one contradicts, from 0; −1 of all other pairs.

    Pairs are of one group where the query is the same and their titles have the same set of words,
    those of `lexical.words`: order, case, punctuation, plural endings and repeated words make no
    difference. Groups in which all labels are equal, and titles without words, have no number.
    """
    keys = np.empty(len(titles), DIGEST)
    worded = np.empty(len(titles), bool)
    for start in range(0, len(titles), CHUNK_ROWS):
        texts = lexical.split_all(titles[start : start + CHUNK_ROWS].to_pylist())
        digests = np.array([digest_of(*sorted(set(words))) for words in texts.words], DIGEST)
        keys[start : start + CHUNK_ROWS] = digests[texts.place]
        filled = np.array([bool(words) for words in texts.words], bool)
        worded[start : start + CHUNK_ROWS] = filled[texts.place]
    _, words = np.unique(keys, return_inverse=True)
    _, group = np.unique(query * (int(words.max(initial=0)) + 1) + words, return_inverse=True)
    lowest = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    highest = np.full(len(lowest), -1)
    np.minimum.at(lowest, group, labels)
    np.maximum.at(highest, group, labels)
    torn = (lowest != highest)[group] & worded
    found = np.full(len(titles), -1)
    found[torn] = np.unique(group[torn], return_inverse=True)[1]
    return found


def votes(
    titles: pa.ChunkedArray,
    query: Int[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    wanted: Bool[np.ndarray, "N"],
    *,
    classes: int,
) -> Int64[np.ndarray, "N K"]:
    """How many of the similar items of each pair's query have each label.

    Similar are the NEAREST other pairs of the query at most, those whose titles have the greatest
    cosine under TF-IDF (`feedback.vectors`), of LEAST or more; the first given win ties.

    wanted: of which pairs to count; the others, and pairs without similar ones, have 0 throughout.
    """
    statistics = lexical.count(
        title
        for start in range(0, len(titles), CHUNK_ROWS)
        for title in titles[start : start + CHUNK_ROWS].to_pylist()
    )
    found = np.zeros((len(query), classes), np.int64)
    asked = np.zeros(int(query.max(initial=-1)) + 1, bool)
    asked[query[wanted]] = True
    rows = np.flatnonzero(asked[query])
    rows = rows[np.argsort(query[rows], kind="stable")]
    ends = np.flatnonzero(np.diff(query[rows], append=-1)) + 1
    at = 0
    while at < len(rows):  # whole queries, about CHUNK_ROWS pairs
        end = int(ends[min(int(np.searchsorted(ends, at + CHUNK_ROWS)), len(ends) - 1)])
        chunk = rows[at:end]
        texts = lexical.split_all(titles.take(pa.array(chunk)).to_pylist())
        pair, value, word, width = feedback.vectors(texts, statistics)
        vectors = sparse.csr_array((value, (pair, word)), (len(chunk), width))
        starts = np.flatnonzero(np.diff(query[chunk], prepend=-1))
        for first, last in zip(starts, [*starts[1:], len(chunk)], strict=True):
            of_query = vectors[first:last]
            for row in range(0, last - first, _ROWS):
                cosine = (of_query[row : row + _ROWS] @ of_query.T).toarray()
                here = np.arange(len(cosine))
                cosine[here, row + here] = -1  # an item is not one of the others
                nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAREST]
                similar = np.take_along_axis(cosine, nearest, 1) >= LEAST
                of_others = labels[chunk[first:last]][nearest]
                for label in range(classes):
                    found[chunk[first + row + here], label] = (similar & (of_others == label)).sum(
                        1
                    )
        at = end
    found[~wanted] = 0
    return found
