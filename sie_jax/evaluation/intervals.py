"""Test metrics with bootstrap intervals over queries, and the differences between runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64, Num

from sie_jax.evaluation import claims, classification, ranking
from sie_jax.evaluation.predictions import Predictions

# Elements of one block of resampling counts (32 MiB), so that memory does not grow with resamples.
_BLOCK = 1 << 22


def resampling(
    num_queries: int, *, resamples: int, seed: int
) -> Iterator[Int64[np.ndarray, "r Q"]]:
    """Draws Q queries with replacement, `resamples` times, as counts per query.

    Args:
        num_queries: Q.
        resamples: How many draws.
        seed: Seed of the generator. Equal arguments give equal counts.

    Yields:
        Blocks of int64 counts `[r, Q]`, `resamples` rows in all, every row summing to Q.
    """
    generator = np.random.default_rng(seed)
    block = max(_BLOCK // num_queries, 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(num_queries, np.full(num_queries, 1 / num_queries), size)


def weighted_mean(
    values: Float64[np.ndarray, "Q"], counts: Num[np.ndarray, "r Q"]
) -> Float64[np.ndarray, "r"]:
    """Σ_q counts_rq · values_q / Σ_q counts_rq over the queries whose value is not NaN.

    NaN where a row counts no such query.
    """
    defined = ~np.isnan(values)
    counts = counts.astype(np.float64, copy=False)
    total = counts @ defined.astype(np.float64)
    mean = counts @ np.where(defined, values, 0.0) / np.where(total == 0, 1, total)
    return np.where(total == 0, np.nan, mean)


def interval(
    value: float, samples: Float64[np.ndarray, "R"], *, level: float = 0.95
) -> dict[str, float | None]:
    """A value with the percentile bootstrap interval of its resampled values.

        low, high = the (1 - level)/2 and (1 + level)/2 quantiles of the samples that are not NaN

    Returns:
        `{"value", "low", "high"}`, with None for what is undefined: a value that is NaN, bounds
        without a sample.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    samples = samples[~np.isnan(samples)]
    if np.isnan(value) or not samples.size:
        return {"value": _number(value), "low": None, "high": None}
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(value), "low": float(low), "high": float(high)}


def of_mean(
    values: Float64[np.ndarray, "Q"], *, resamples: int, seed: int, level: float = 0.95
) -> dict[str, float | None]:
    """The mean over queries with its percentile bootstrap interval.

    With the differences d_q of two runs on the same queries for values, this is the paired interval
    of their difference. Queries whose value is NaN are left out.

    Args:
        values: One number per query.
        resamples, seed: As in `resampling`. Equal arguments give equal bounds.
        level: The share of resampled means between the bounds.

    Returns:
        `{"value", "low", "high"}`, None where undefined: all three without a value, the bounds with
        fewer than two. The bounds are narrower than those of Student's t by the factor
        sqrt(1 - 1/Q) · 1.96 / t(0.975, Q - 1), 0.942 for 30 queries.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    defined = values[~np.isnan(values)]
    samples = [np.empty(0)]
    if len(defined) > 1:
        draws = resampling(len(defined), resamples=resamples, seed=seed)
        samples += [weighted_mean(defined, counts) for counts in draws]
    value = float(defined.mean()) if len(defined) else np.nan
    return interval(value, np.concatenate(samples), level=level)


class Judgments(NamedTuple):
    """The pairs that runs are evaluated on.

    labels: the grade of each pair in `[0, K)`, lowest first. query_ids: the query of each pair; the
    pairs of one query need not be adjacent. example_ids: distinct ids; they break ties of scores
    (`ranking.tie_order`). label_names, gains: of the K grades.
    """

    labels: Int[np.ndarray, "N"]
    query_ids: Sequence[str] | np.ndarray
    example_ids: Sequence[str] | np.ndarray
    label_names: Sequence[str]
    gains: Sequence[float] | Num[np.ndarray, "K"]


def summarize(
    judgments: Judgments,
    runs: Mapping[str, Sequence[Predictions]],
    *,
    reference: str = "uniform",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates every run on one set of pairs, with 95 % intervals and paired differences.

    A metric of a run is the mean over its seeds of the metric of one seed, θ = 1/S Σ_s θ_s, where a
    ranking metric θ_s is the mean over queries and a classification metric counts all pairs. Its
    interval in `test` is the percentile bootstrap over queries: Q queries are drawn with
    replacement, with all their pairs, and θ is computed again with the same S trained models. So it
    covers the chance that lies in which queries the test set holds, and NOT the chance of training.

    `difference`, θ(run) - θ(reference), is a claim about procedures. Its interval is that of
    `claims`: paired over queries, and over seeds too where there are two or more. Seeds are paired
    in their order. One entry beside several is fixed (a baseline), and is compared with each of
    them. Other unequal numbers of seeds are not paired. Where both have one entry the interval is
    over queries alone: it holds for these two models, and says nothing about other seeds. What
    queries do to a metric that is no mean over them (the classification metrics) is the covariance
    of its bootstrap resamples, times Q/(Q - 1).

    Args:
        judgments: The pairs, and what is known of them.
        runs: Predictions of each run, one entry a seed; runs may differ in their number of seeds.
        reference: The run that the others are compared with.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        Plain JSON values, None where undefined:

            {"test":       {run: {metric: {"value", "low", "high"}}},
             "difference": {run: {metric: {"value", "low", "high"}}},     without the reference
             "seeds":      {run: {metric: [value of each seed]}},
             "queries":    {"evaluated", "without_positive_gain", "without_highest_grade"}}

        `evaluated` queries have a positive gain, and nDCG is over them. `without_highest_grade` are
        those among them that MRR and recall@10 leave out (see `ranking.per_query`). With fewer than
        two queries (for a ranking metric: two that it does not leave out) there is nothing to
        resample, and the bounds are None. The result does not depend on the order of the pairs.

    Raises:
        ValueError: No run is called `reference`, or a run has no seed or not N predictions.
        NumericalError: A score is NaN.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3; Järvelin
    and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.
    """
    labels, query_ids, example_ids, label_names, gains = judgments
    if reference not in runs:
        raise ValueError(f"the reference {reference!r} is not among the runs {list(runs)}")
    for run, predictions in runs.items():
        if not predictions or any(
            field is not None and len(field) != len(labels) for one in predictions for field in one
        ):
            raise ValueError(f"run {run!r} needs one seed or more, {len(labels)} predictions each")

    distinct, query_index = np.unique(np.asarray(query_ids, dtype=str), return_inverse=True)
    shape = {"num_queries": len(distinct), "num_classes": len(label_names)}
    ties = ranking.tie_order(example_ids)
    measured = {
        run: [_measure(one, labels, gains, query_index, ties, **shape) for one in predictions]
        for run, predictions in runs.items()
    }

    all_once = np.ones((1, len(distinct)))
    seed_values = {
        run: {
            metric: [float(value[0]) for value in values]
            for metric, values in _estimates(seeds, all_once, label_names).items()
        }
        for run, seeds in measured.items()
    }
    defined = {
        metric: int(np.sum(~np.isnan(measured[reference][0].ranking[metric])))
        for metric in ranking.METRICS
    }
    blocks: dict[str, dict[str, list[np.ndarray]]] = {
        run: {metric: [] for metric in metrics} for run, metrics in seed_values.items()
    }
    if len(distinct) > 1:
        for draws in resampling(len(distinct), resamples=resamples, seed=seed):
            counts = draws.astype(np.float64)
            for run, seeds in measured.items():
                for metric, samples in _estimates(seeds, counts, label_names).items():
                    if defined.get(metric, 2) > 1:
                        blocks[run][metric].append(samples)
    resampled = {
        run: {
            metric: np.concatenate([np.empty((len(measured[run]), 0)), *each], axis=1)
            for metric, each in metrics.items()
        }
        for run, metrics in blocks.items()
    }

    def difference(run: str, metric: str) -> dict[str, float | None]:
        pair = (run, reference)
        sizes, values = claims.contrasts(*(np.array(seed_values[name][metric]) for name in pair))
        if metric in ranking.METRICS:
            per_query = (np.stack([one.ranking[metric] for one in measured[name]]) for name in pair)
            rows = claims.contrasts(*per_query)[1]
            rows, queries = rows[:, ~np.isnan(rows[0])], defined[metric]
            covariance = claims.covariance_of_means(rows)
        else:
            queries = len(distinct)
            samples = claims.contrasts(*(resampled[name][metric] for name in pair))[1]
            covariance = np.zeros((len(samples), len(samples)))
            if queries > 1:
                # a resample varies as the Q queries do with divisor Q
                covariance = np.atleast_2d(np.cov(samples)) * queries / (queries - 1)
        return claims.of_rows(values, covariance, sizes=sizes, queries=queries)

    return {
        "test": {
            run: {
                metric: interval(float(np.mean(each)), resampled[run][metric].mean(0))
                for metric, each in metrics.items()
            }
            for run, metrics in seed_values.items()
        },
        "difference": {
            run: {
                metric: difference(run, metric)
                for metric in metrics
                if metric in seed_values[reference]
            }
            for run, metrics in seed_values.items()
            if run != reference
        },
        "seeds": {
            run: {metric: [_number(value) for value in each] for metric, each in metrics.items()}
            for run, metrics in seed_values.items()
        },
        "queries": {
            "evaluated": defined["ndcg"],
            "without_positive_gain": len(distinct) - defined["ndcg"],
            "without_highest_grade": defined["ndcg"] - defined["mrr"],
        },
    }


class _Measured(NamedTuple):
    """What one seed of a run gave on every query: ranking metrics [Q], confusions [Q, K, K].

    There are no confusions where the run names no classes.
    """

    ranking: dict[str, np.ndarray]
    confusion: np.ndarray | None


def _measure(
    predictions: Predictions,
    labels: np.ndarray,
    gains: Sequence[float] | np.ndarray,
    query_index: np.ndarray,
    ties: np.ndarray,
    *,
    num_queries: int,
    num_classes: int,
) -> _Measured:
    return _Measured(
        ranking.per_query(
            predictions.scores,
            labels,
            gains,
            query_index,
            num_queries=num_queries,
            example_ids=ties,
        ),
        None
        if predictions.classes is None
        else classification.confusion_per_query(
            labels,
            predictions.classes,
            query_index,
            num_queries=num_queries,
            num_classes=num_classes,
        ),
    )


def _estimates(
    seeds: Sequence[_Measured], counts: np.ndarray, label_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Every metric, for each of S seeds and each of r resamples: [S, r]."""
    result = {
        metric: np.stack([weighted_mean(one.ranking[metric], counts) for one in seeds])
        for metric in ranking.METRICS
    }
    confusions = [one.confusion for one in seeds if one.confusion is not None]
    if len(confusions) < len(seeds):
        return result
    num_classes = len(label_names)
    # A product in float64 is exact for counts, and BLAS does it.
    flat = np.stack([one.reshape(counts.shape[1], num_classes**2) for one in confusions])
    confusion = counts @ flat.astype(np.float64)
    confusion = confusion.reshape(len(seeds), len(counts), num_classes, num_classes)
    return result | classification.metrics(confusion, label_names)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
