"""Judgments and rankings as files from which trec_eval computes what `ranking.per_query` does."""

import math
import string
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jaxtyping import Float, Int, Num

from sie_jax.evaluation.ranking import rank_order
from sie_jax.files import whole

# The time trec_eval takes for the nDCG of one query grows with the square of the highest relevance.
HIGHEST_RELEVANCE = 1024

_SAFE = "".join(set(string.punctuation) - set("#%"))


def escape(identifier: str) -> str:
    """An id as one field of a line: as it is, but for white space, "#", "%" and non-ASCII letters.

    These are percent-encoded as UTF-8, and `urllib.parse.unquote` gives the id back. White space
    would end the field, and a line that begins with "#" is a comment. "%" is among them so that
    different ids stay different. The empty id is "%", which is no other id's.
    """
    return quote(identifier, safe=_SAFE) or "%"


def relevance_levels(gains: Sequence[float] | Num[np.ndarray, "K"]) -> list[int]:
    """The gains as the whole numbers that qrels hold: times the smallest that makes all whole.

    (0, 0.01, 0.1, 1) gives [0, 1, 10, 100]. nDCG is the same whatever positive number all gains are
    multiplied by.

    Args:
        gains: Gain of each of the K grades, finite and non-negative. A gain counts as the fraction
            of denominator <= HIGHEST_RELEVANCE that has its float64 value, so that 1/3 is a third.

    Returns:
        K whole numbers.

    Raises:
        ValueError: A gain is no such fraction, or the whole numbers exceed HIGHEST_RELEVANCE.
    """
    values = [float(gain) for gain in gains]
    fractions = [Fraction(value).limit_denominator(HIGHEST_RELEVANCE) for value in values]
    factor = math.lcm(*(fraction.denominator for fraction in fractions))
    levels = [int(fraction * factor) for fraction in fractions]
    if [float(fraction) for fraction in fractions] != values or max(levels) > HIGHEST_RELEVANCE:
        shown = f"{str(values[:8])[:-1]}, …]" if len(values) > 8 else values
        raise ValueError(
            f"gains {shown} are no multiples of one fraction that are whole numbers up to "
            f"{HIGHEST_RELEVANCE}, as trec_eval needs them"
        )
    return levels


def write_qrels(
    path: Path,
    query_ids: Sequence[str] | np.ndarray,
    example_ids: Sequence[str] | np.ndarray,
    labels: Int[np.ndarray, "N"],
    levels: Sequence[int],
) -> None:
    """Writes `query_id 0 example_id relevance` for every pair, in the order given.

    Queries without a pair of positive relevance are left out. trec_eval would count their nDCG,
    reciprocal rank and recall as 0, where `ranking.per_query` leaves them out of its means; it
    passes over queries that the run has and the qrels do not.

    The document of a pair is its example id, which is distinct; one item may be judged twice for a
    query, under two titles.

    Args:
        path: The file, there whole or not at all.
        query_ids, example_ids: Ids of the N pairs (see `escape`).
        labels: Grade of each pair in `[0, K)`.
        levels: Relevance of each of the K grades, whole numbers >= 0: `relevance_levels(gains)` for
            nDCG; for reciprocal rank and recall, 1 for the highest grade and 0 for the others.
    """
    relevance = np.asarray(levels)[labels].tolist()
    rows = list(zip(map(str, query_ids), map(str, example_ids), relevance, strict=True))
    judged = {query for query, _, level in rows if level > 0}
    with whole(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(
            f"{escape(query)} 0 {escape(example)} {level}\n"
            for query, example, level in rows
            if query in judged
        )


def write_run(
    path: Path,
    query_ids: Sequence[str] | np.ndarray,
    example_ids: Sequence[str] | np.ndarray,
    scores: Float[np.ndarray, "N"],
    *,
    tag: str,
) -> None:
    """Writes `query_id Q0 example_id rank score tag` for every pair, each query's best pair first.

    The order is that of `ranking.per_query`: by score, highest first, equal scores by ascending
    example id. trec_eval does not read the rank; it sorts by score, which it reads as a 32-bit
    float, and breaks ties by descending document. So that there are none, a score that as a float32
    is not below the one before it is written as the next float32 below that one.

    Args:
        path: The file, there whole or not at all.
        query_ids: The query of each of the N pairs (see `escape`).
        example_ids: Ids, distinct within a query.
        scores: Score of each pair.
        tag: The run's name.

    Raises:
        ValueError: A score is NaN, or beyond ±1e38 and so hardly a float32.
    """
    if not np.all(np.abs(scores) <= 1e38):
        raise ValueError(f"run {tag!r} has a score that is NaN or beyond ±1e38")
    singles = scores.astype(np.float32)
    documents = [escape(str(example)) for example in example_ids]
    queries, query_index = np.unique(np.asarray(query_ids, str), return_inverse=True)
    order = rank_order(scores, query_index, example_ids)
    ends = np.cumsum(np.bincount(query_index, minlength=len(queries)))
    lowest, name = np.float32(-np.inf), escape(tag)
    with whole(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        # not strict: of no pairs at all, split makes one empty piece
        for query, rows in zip(queries.tolist(), np.split(order, ends[:-1]), strict=False):
            prefix, score = f"{escape(query)} Q0", np.float32(np.inf)
            for rank, row in enumerate(rows.tolist(), 1):
                score = min(singles[row], np.nextafter(score, lowest))
                # nine digits tell every two float32 apart
                file.write(f"{prefix} {documents[row]} {rank} {score:.9g} {name}\n")
