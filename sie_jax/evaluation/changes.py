"""Small changes of a query that leave its meaning, and what they do to the order of its items."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from sie_jax.evaluation import claims, ranking

Score = Callable[[Sequence[Mapping[str, Any]]], Float64[np.ndarray, "N"]]
"""Gives a score for each row; the rows of a query come together. NaN where a row has none."""


def typo(query: str, rng: np.random.Generator) -> str | None:
    """Two neighbouring letters swapped in one word of four letters or more; None without one.

    The word has letters alone, and the two letters differ.
    """
    words = query.split()
    places = [
        (number, at)
        for number, word in enumerate(words)
        if len(word) >= 4 and word.isalpha()
        for at in range(len(word) - 1)
        if word[at] != word[at + 1]
    ]
    if not places:
        return None
    number, at = places[int(rng.integers(len(places)))]
    word = words[number]
    words[number] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def word_order(query: str, rng: np.random.Generator) -> str | None:
    """The words in reverse; None where that is the same query."""
    words = query.split()
    return " ".join(words[::-1]) if words != words[::-1] else None


def plural(query: str, rng: np.random.Generator) -> str | None:
    """The last word with an s, or without the s that it ends with.

    None where the last word is not of ASCII letters, has fewer than three, or ends with -ss, -us or
    -is, which is no plural.
    """
    *others, last = query.split() or [""]
    if len(last) < 3 or not (last.isascii() and last.isalpha()):
        return None
    if last.lower().endswith(("ss", "us", "is")):
        return None
    changed = last[:-1] if last.lower().endswith("s") else f"{last}s"
    return " ".join([*others, changed])


CHANGES: dict[str, Callable[[str, np.random.Generator], str | None]] = {
    "typo": typo,
    "word order": word_order,
    "plural": plural,
}


def sample(
    query_ids: Sequence[str],
    labels: Int[np.ndarray, "N"],
    gains: Sequence[float],
    *,
    most: int,
    seed: int,
) -> Int64[np.ndarray, "M"]:
    """The rows of up to `most` queries with two items or more, one of them of positive gain.

    Equal arguments give equal rows, in their order; which queries are drawn does not depend on the
    order of the rows.
    """
    distinct, query_index = np.unique(np.asarray(query_ids, dtype=str), return_inverse=True)
    positive = np.bincount(query_index, np.asarray(gains)[labels] > 0, len(distinct)) > 0
    usable = np.flatnonzero(positive & (np.bincount(query_index, minlength=len(distinct)) > 1))
    drawn = np.random.default_rng(seed).permutation(usable)[:most]
    return np.flatnonzero(np.isin(query_index, drawn))


def measure(
    score: Score,
    rows: Sequence[Mapping[str, Any]],
    labels: Int[np.ndarray, "N"],
    gains: Sequence[float],
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What each of CHANGES does to nDCG@10 and to the order of the items.

    Kendall's τ of two orders of L items, which have no ties (equal scores break by example id), is
    the share of the L(L - 1)/2 pairs of items that keep their order less the share that turn.

    Args:
        score: The ranker.
        rows: The pairs of some queries, each with `query`, `query_id`, `example_id` and what else
            the ranker needs; a query has two pairs or more, one of positive gain (`sample`).
        labels: The grade of each row. gains: of the grades.
        seed: Of the typos. Equal arguments give equal results.

    Returns:
        For each change `{"queries", "unscored", "ndcg@10", "first_changed", "kendall_tau",
        "example"}`: the queries that can be changed so and that have a score before and after;
        those that lack one and are left out; the mean of nDCG@10 after less before as
        `claims.fixed` gives it; the share of the queries whose first item is another; the mean of
        τ; and `[before, after]` of the first query. None where there is no query.
    """
    ties = ranking.tie_order([row["example_id"] for row in rows])
    _, first, of_row = np.unique(
        np.array([row["query_id"] for row in rows], dtype=str),
        return_index=True,
        return_inverse=True,
    )
    queries = [str(rows[at]["query"]) for at in first]
    before = np.asarray(score(rows), np.float64) if rows else np.empty(0)
    found = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        rng = np.random.default_rng([seed, number])
        changed = [change(query, rng) for query in queries]
        places = np.flatnonzero([changed[query] is not None for query in of_row])
        after = np.full(len(rows), np.nan)
        if len(places):
            after[places] = score(
                [{**rows[at], "query": changed[of_row[at]]} for at in places.tolist()]
            )
        tried = set(of_row[places].tolist())
        unscored = set(of_row[places][np.isnan((before + after)[places])].tolist())
        kept = np.flatnonzero(np.isin(of_row, list(tried - unscored)))
        _, query_index = np.unique(of_row[kept], return_inverse=True)
        found[name] = {
            "queries": len(tried) - len(unscored),
            "unscored": len(unscored),
            **_difference(before[kept], after[kept], labels[kept], gains, query_index, ties[kept]),
            "example": next(([queries[q], changed[q]] for q in sorted(tried - unscored)), None),
        }
    return found


def _difference(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    gains: Sequence[float],
    query_index: np.ndarray,
    ties: np.ndarray,
) -> dict[str, Any]:
    """How two scorings of the same queries differ, over the queries."""
    queries = int(query_index.max()) + 1 if len(query_index) else 0
    if not queries:
        undefined = {"value": None, "low": None, "high": None}
        return {"ndcg@10": undefined, "first_changed": None, "kendall_tau": None}
    values, ranks = [], []
    for scores in (before, after):
        measured = ranking.per_query(
            scores, labels, gains, query_index, num_queries=queries, example_ids=ties
        )
        values.append(measured["ndcg@10"])
        ranks.append(np.argsort(ranking.rank_order(scores, query_index, ties)))
    of_query = [np.flatnonzero(query_index == query) for query in range(queries)]
    pairs = [(ranks[0][rows], ranks[1][rows]) for rows in of_query]
    return {
        "ndcg@10": claims.fixed(values[1] - values[0]),
        "first_changed": float(np.mean([a.argmin() != b.argmin() for a, b in pairs])),
        "kendall_tau": float(np.mean([_kendall_tau(a, b) for a, b in pairs])),
    }


def _kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Of two orders without ties, given as ranks."""
    above = np.triu_indices(len(a), 1)
    agree = np.sign(np.subtract.outer(a, a)[above]) * np.sign(np.subtract.outer(b, b)[above])
    return float(agree.mean())
