"""What fixed rankings of the same judged queries are worth, alone and beside each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from sie_jax.evaluation import claims, intervals, ranking
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.verdict import BASELINES, METRIC, verdict

PerQuery = Mapping[str, Float64[np.ndarray, "Q"]]
"""Each of `ranking.METRICS` on every query; NaN where a query is left out."""


def per_query(judgments: Judgments, scores: Float[np.ndarray, "N"]) -> PerQuery:
    """The ranking metrics of every query, the queries in the order of their ids."""
    distinct, index = np.unique(np.asarray(judgments.query_ids, dtype=str), return_inverse=True)
    return ranking.per_query(
        scores,
        judgments.labels,
        judgments.gains,
        index,
        num_queries=len(distinct),
        example_ids=judgments.example_ids,
    )


def paired(ours: PerQuery, theirs: PerQuery) -> dict[str, dict[str, float | None]]:
    """Ours less theirs in every metric: `claims.fixed` of the queries' differences."""
    return {metric: claims.fixed(ours[metric] - theirs[metric]) for metric in ranking.METRICS}


def measured(
    runs: Mapping[str, PerQuery], *, ranker: str, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Every ranking with intervals, and one of them beside all others.

    Args:
      runs: the metrics of each ranking, which is fixed.
      ranker: the one that the question is about.
      resamples, seed: of the percentile bootstrap over queries (`intervals.of_mean`).

    Returns:
      Plain JSON values, None where undefined, with the keys and meanings of metrics.json:

            {"queries":    {"evaluated", "without_positive_gain", "without_highest_grade"},
             "test":       {run: {metric: {"value", "low", "high"}}},
             "difference": {run: {metric: {"value", "low", "high"}}},  ranker minus run
             "verdict":    of `verdict.verdict`}                       where there is a baseline
    """
    ours = runs[ranker]
    defined = {metric: int((~np.isnan(values)).sum()) for metric, values in ours.items()}
    found: dict[str, Any] = {
        "queries": {
            "evaluated": defined["ndcg"],
            "without_positive_gain": len(ours["ndcg"]) - defined["ndcg"],
            "without_highest_grade": defined["ndcg"] - defined["mrr"],
        },
        "test": {
            run: {
                metric: intervals.of_mean(values[metric], resamples=resamples, seed=seed)
                for metric in ranking.METRICS
            }
            for run, values in runs.items()
        },
        "difference": {run: paired(ours, one) for run, one in runs.items() if run != ranker},
    }
    if any(run in BASELINES for run in runs if run != ranker):
        ndcg = {run: values[METRIC][None] for run, values in runs.items()}
        found["verdict"] = verdict(ndcg, None, ranker=ranker)
    return found
