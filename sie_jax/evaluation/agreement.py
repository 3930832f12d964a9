"""How a score goes with the disagreement of the people who gave the labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sie_jax.evaluation.detection import midranks
from sie_jax.evaluation.intervals import interval, resampling


def disagreement(ratings: np.ndarray) -> np.ndarray:
    """The standard deviation of each pair's grades over its raters, float64 `[N]`.

    ratings: int `[N, R]`, −1 where a rater gave none. Population form (divided by the number of
    ratings); 0 where all agree; NaN where fewer than two raters gave a grade.
    """
    given = ratings >= 0
    count = given.sum(1)
    values = np.where(given, ratings, 0).astype(np.float64)
    mean = values.sum(1) / np.maximum(count, 1)
    squares = np.where(given, (values - mean[:, None]) ** 2, 0.0).sum(1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count, 1)), np.nan)


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's ρ: Pearson's correlation of midranks. NaN where one side is constant or empty."""
    if len(left) < 2 or (left == left[0]).all() or (right == right[0]).all():
        return float("nan")
    return float(np.corrcoef(midranks(left), midranks(right))[0, 1])


def correlations(
    hardness: Mapping[str, np.ndarray],
    values: np.ndarray,
    query_ids: Sequence[str] | np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Spearman's ρ of each score with `values`, with 95 % bootstrap intervals over queries.

    hardness: for each score, float `[N]`, high for hard; values: float `[N]`, a pair whose value is
    NaN left out; query_ids: `[N]`. Queries are drawn with replacement, with all their pairs, and ρ
    is computed again on the pairs drawn (Efron and Tibshirani 1993, section 13.3).

    Returns `{score: {"value", "low", "high"}}`, None for what is undefined.
    """
    known = np.flatnonzero(~np.isnan(values))
    values = values[known]
    distinct, query = np.unique(np.asarray(query_ids, str)[known], return_inverse=True)
    members = [np.flatnonzero(query == i) for i in range(len(distinct))]
    samples: dict[str, list[float]] = {name: [] for name in hardness}
    if len(distinct) > 1:
        for block in resampling(len(distinct), resamples=resamples, seed=seed):
            for counts in block:
                rows = np.concatenate(
                    [np.tile(members[i], counts[i]) for i in np.flatnonzero(counts)]
                )
                for name, scores in hardness.items():
                    samples[name].append(spearman(scores[known][rows], values[rows]))
    return {
        name: interval(spearman(scores[known], values), np.array(samples[name], np.float64))
        for name, scores in hardness.items()
    }
