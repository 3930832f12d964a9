"""Baselines that need no training: chance, words, BM25, a checkpoint's cosine, today's score."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from sie_jax.data import lexical, sentences
from sie_jax.data.lexical import FieldStatistics
from sie_jax.data.sentences import SentenceEncoder
from sie_jax.evaluation.predictions import Predictions

_BINS = 10


def random(
    example_ids: Sequence[str] | np.ndarray,
    *,
    training_labels: Int[np.ndarray, "M"],
    num_classes: int,
    seed: int,
) -> Predictions:
    """Draws scores uniformly and classes with the frequencies of the training labels.

    Both draws are functions of (seed, example id) alone, so the order of the rows and what other
    rows there are change nothing.

    Args:
        example_ids: Ids of the N pairs. Equal ids get equal draws.
        training_labels: Grades of the training pairs, in `[0, K)`.
        num_classes: K.
        seed: Seed of the draws.

    Returns:
        Classes in `[0, K)` and scores in [0, 1).

    Raises:
        ValueError: No training labels.
    """
    if not len(training_labels):
        raise ValueError("random needs one training label or more")
    salt = seed.to_bytes(16, "little", signed=True)
    digests = b"".join(
        hashlib.blake2b(str(example_id).encode(), digest_size=16, salt=salt).digest()
        for example_id in example_ids
    )
    # The upper 53 bits of a word make a float64 that is uniform in [0, 1).
    words = np.frombuffer(digests, "<u8").reshape(-1, 2) >> np.uint64(11)
    scores, draws = words.astype(np.float64).T * 2.0**-53
    cumulative = np.cumsum(np.bincount(training_labels, minlength=num_classes))
    edges = cumulative[:-1] / len(training_labels)
    return Predictions(np.searchsorted(edges, draws, side="right"), scores)


def token_overlap(
    queries: Sequence[str],
    titles: Sequence[str],
    *,
    training_queries: Sequence[str],
    training_titles: Sequence[str],
    training_labels: Int[np.ndarray, "M"],
    num_classes: int,
) -> Predictions:
    """Scores a pair by the share of the query's distinct words that its title holds.

        score = |words(query) ∩ words(title)| / |words(query)|

    Words are runs of Unicode word characters, casefolded. The class is the most frequent training
    label (the lowest grade among equals) among the training pairs whose score is in the same tenth
    of [0, 1], the last tenth including 1; where no training pair is, in the nearest tenth that has
    one (the lower among equals).

    Args:
        queries, titles: Texts of the N pairs. A query without words scores 0.
        training_queries, training_titles, training_labels: The M training pairs.
        num_classes: K.

    Returns:
        Classes in `[0, K)` and scores in [0, 1].

    Raises:
        ValueError: No training pairs.
    """
    _, training_bins = _overlap(training_queries, training_titles)
    scores, bins = _overlap(queries, titles)
    counts = np.zeros((_BINS, num_classes), np.int64)
    np.add.at(counts, (training_bins, training_labels), 1)
    filled = np.flatnonzero(counts.any(-1))
    if not filled.size:
        raise ValueError("token_overlap needs one training pair or more")
    nearest = filled[np.abs(np.arange(_BINS)[:, None] - filled).argmin(-1)]
    return Predictions(counts.argmax(-1)[nearest][bins], scores)


def overlap(queries: Sequence[str], titles: Sequence[str]) -> Float64[np.ndarray, "N"]:
    """The scores of `token_overlap`, which no training pair changes."""
    return _overlap(queries, titles)[0]


def bm25(
    queries: Sequence[str], titles: Sequence[str], statistics: FieldStatistics
) -> Float64[np.ndarray, "N"]:
    """BM25 of each title for its query (`lexical.bm25`); it ranks, and names no class.

    Args:
        queries, titles: Texts of the N pairs.
        statistics: Of the titles of the whole catalogue (`lexical.count`).
    """
    texts = (lexical.split_all(side) for side in (queries, titles))
    return lexical.bm25(lexical.match(*texts), statistics)


def checkpoint(
    encoder: SentenceEncoder, queries: Sequence[str], titles: Sequence[str]
) -> Float64[np.ndarray, "N"]:
    """The cosine of query and title under a pretrained encoder; it ranks, and names no class.

    What the checkpoint is worth without any training. `encoder.notes` says what its folder leaves
    open.
    """
    return sentences.cosine(encoder, queries, titles).astype(np.float64)


def current(scores: Float[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
    """The user's own score as it is, the higher the better; it ranks, and names no class.

    A missing score (NaN) is just below the lowest there is, so that the pair comes last, as an item
    does that today's system does not return. Infinite scores count as missing too.
    """
    scores = np.asarray(scores, np.float64)
    known = np.isfinite(scores)
    lowest = scores[known].min() if known.any() else 0.0
    return np.where(known, scores, np.nextafter(lowest, -np.inf))


def _overlap(queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N] and the tenth each lies in [N], in integers so that 0.3 is in its own tenth."""
    pairs = [(_words(query), _words(title)) for query, title in zip(queries, titles, strict=True)]
    found = np.array([len(query & title) for query, title in pairs], np.int64)
    total = np.array([max(len(query), 1) for query, _ in pairs], np.int64)
    return found / total, np.minimum(_BINS * found // total, _BINS - 1)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
