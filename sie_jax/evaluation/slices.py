"""Slices of the test queries, and the difference of two rankers on each of them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy import special

from sie_jax.data import lexical
from sie_jax.evaluation import claims

LEAST_QUERIES = 10
"""A slice of fewer queries has a value and no interval."""
MOST_CATEGORIES = 12
ALPHA = 0.05

_NUMBER = re.compile(r"\d")

Masks = dict[str, Bool[np.ndarray, "Q"]]


def groupings(
    queries: Sequence[str],
    *,
    training_queries: Iterable[str],
    categories: Sequence[str] | None = None,
) -> dict[str, Masks]:
    """How queries can be divided: a mask `[Q]` for each slice of each grouping.

        words in the query        1 or 2, 3 or 4, 5 or more (`lexical.words`)
        words in training         whether every word of the query is in some training query
        numbers                   whether the query has a digit
        category                  as given; the most frequent ones, and the others together

    Args:
        queries: The text of each query.
        training_queries: The texts of all training queries.
        categories: Of each query, "" where there is none; None where nothing is known of any.

    Returns:
        Every query is in one slice of each grouping. An empty slice is left out, and with it a
        grouping of one slice, which says nothing that the whole does not say.
    """
    asked = [lexical.words(query) for query in queries]
    known = {word for query in training_queries for word in lexical.words(query)}
    length = np.array([len(words) for words in asked])
    seen = np.array([all(word in known for word in words) for words in asked], bool)
    number = np.array([bool(_NUMBER.search(query)) for query in queries], bool)
    found: dict[str, Masks] = {
        "words in the query": {
            "1 or 2": length <= 2,
            "3 or 4": (length == 3) | (length == 4),
            "5 or more": length >= 5,
        },
        "words in training": {"all seen": seen, "some unseen": ~seen},
        "numbers": {"with a number": number, "without a number": ~number},
    }
    if categories is not None:
        found["category"] = _categories(categories)
    kept = {
        grouping: {name: mask for name, mask in masks.items() if mask.any()}
        for grouping, masks in found.items()
    }
    return {grouping: masks for grouping, masks in kept.items() if len(masks) > 1}


def _categories(categories: Sequence[str]) -> Masks:
    counts = Counter(categories)
    order = sorted(counts, key=lambda name: (-counts[name], name))
    own, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    given = np.array(categories, object)
    masks = {name or "(none)": given == name for name in own}
    if rest:
        masks[f"{len(rest)} other categories"] = np.isin(given.astype(str), rest)
    return masks


def most_common(values: Sequence[str], places: np.ndarray, size: int) -> list[str]:
    """The most frequent value of each of `size` groups; the first in the alphabet among equals.

    values: one per row, "" where there is none, which counts only where a group has no other.
    places: the group of each row.
    """
    counts: list[Counter[str]] = [Counter() for _ in range(size)]
    for value, place in zip(values, places.tolist(), strict=True):
        if value:
            counts[place][value] += 1
    return [min(one, key=lambda v: (-one[v], v)) if one else "" for one in counts]


def compare(
    ours: Float64[np.ndarray, "Q"],
    theirs: Float64[np.ndarray, "Q"],
    slices: Mapping[str, Masks],
) -> list[dict[str, Any]]:
    """Both means and their paired difference on every slice.

    The interval is `claims.fixed`, for each slice alone. Among many slices some differ by chance,
    so whether one is *marked* is decided over all of them together (`holm`), by the two-sided
    paired t test.

    Args:
        ours, theirs: A metric of two fixed rankers on each query; NaN where it is left out.
        slices: As `groupings` gives them.

    Returns:
        One `{"grouping", "slice", "queries", "ours", "theirs", "difference", "marked"}` for each
        slice with a query that is not left out. `difference` is `{"value", "low", "high"}`; with
        fewer than LEAST_QUERIES queries its bounds are None, and the slice is not tested.
    """
    defined = ~(np.isnan(ours) | np.isnan(theirs))
    rows: list[dict[str, Any]] = []
    tests: list[tuple[int, float]] = []
    for grouping, masks in slices.items():
        for name, mask in masks.items():
            taken = mask & defined
            queries = int(taken.sum())
            if not queries:
                continue
            differences = ours[taken] - theirs[taken]
            difference = claims.fixed(differences)
            if queries < LEAST_QUERIES:
                difference |= {"low": None, "high": None}
            else:
                tests.append((len(rows), _p_value(differences)))
            rows.append(
                {
                    "grouping": grouping,
                    "slice": name,
                    "queries": queries,
                    "ours": float(ours[taken].mean()),
                    "theirs": float(theirs[taken].mean()),
                    "difference": difference,
                    "marked": False,
                }
            )
    for (place, _), adjusted in zip(tests, holm([p for _, p in tests]), strict=True):
        rows[place]["marked"] = bool(adjusted < ALPHA)
    return rows


def holm(p_values: Sequence[float]) -> Float64[np.ndarray, "M"]:
    """Holm's adjusted p-values: p'_(i) = max over j ≤ i of min(1, (M - j + 1) · p_(j)).

    Marking those below α keeps the chance of any false mark at α, however the tests depend.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return adjusted


def _p_value(differences: Float64[np.ndarray, "Q"]) -> float:
    """Of the two-sided paired t test; without spread 1 for a mean of 0, and 0 otherwise."""
    mean, freedom = float(differences.mean()), len(differences) - 1
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    if error == 0:
        return float(mean == 0)
    return float(2 * special.stdtr(freedom, -abs(mean) / error))
