"""The bootstrap against explicit resampling and normal theory, and what the summary holds."""

import json
import math

import numpy as np
import pytest

from sie_jax.evaluation import Predictions, claims, classification, intervals, ranking
from sie_jax.evaluation.intervals import Judgments, summarize

NAMES = ("I", "C", "S", "E")
GAINS = (0.0, 0.01, 0.1, 1.0)


def test_resampling_draws_as_many_queries_as_there_are(monkeypatch):
    monkeypatch.setattr(intervals, "_BLOCK", 30)
    blocks = list(intervals.resampling(10, resamples=8, seed=0))
    assert [len(block) for block in blocks] == [3, 3, 2]
    counts = np.concatenate(blocks)
    np.testing.assert_array_equal(counts.sum(1), 10)
    again = np.concatenate(list(intervals.resampling(10, resamples=8, seed=0)))
    np.testing.assert_array_equal(again, counts)
    other = np.concatenate(list(intervals.resampling(10, resamples=8, seed=1)))
    assert not np.array_equal(other, counts)


def test_weighted_mean_is_the_mean_of_the_drawn_queries():
    generator = np.random.default_rng(0)
    values = generator.random(6)
    values[[1, 4]] = np.nan
    counts = generator.integers(3, size=(20, 6))
    counts[0] = [0, 3, 0, 0, 3, 0]
    actual = intervals.weighted_mean(values, counts)
    assert np.isnan(actual[0])
    for row, mean in zip(counts[1:], actual[1:], strict=True):
        drawn = np.repeat(values, row)
        assert mean == pytest.approx(np.mean(drawn[~np.isnan(drawn)]))


def test_interval_width_agrees_with_normal_theory():
    # The bootstrap distribution of a mean of Q values has standard deviation s / sqrt(Q), s with
    # divisor Q. Its 2.5 % quantile from R = 4,000 draws has standard error
    # sqrt(0.025 · 0.975 / R) / φ(1.96) = 0.042 standard deviations; four of them are 0.17. The
    # skewness of a mean of 400 uniforms adds nothing visible.
    num_queries, resamples = 400, 4000
    values = np.random.default_rng(0).random(num_queries)
    samples = np.concatenate(
        [
            intervals.weighted_mean(values, counts)
            for counts in intervals.resampling(num_queries, resamples=resamples, seed=1)
        ]
    )
    bounds = intervals.interval(float(values.mean()), samples)
    standard_error = values.std() / math.sqrt(num_queries)
    assert bounds["low"] == pytest.approx(
        values.mean() - 1.96 * standard_error, abs=0.17 * standard_error
    )
    assert bounds["high"] == pytest.approx(
        values.mean() + 1.96 * standard_error, abs=0.17 * standard_error
    )


def test_coverage_is_near_the_nominal_level():
    # 95 % intervals of the mean of 50 normals, 300 worlds. The percentile interval is narrow by
    # the factor sqrt(49/50) · 1.96 / t(0.975, 49) = 0.965, so it covers 94.1 %; the count over the
    # worlds has standard deviation sqrt(300 · 0.94 · 0.06) = 4.1 (1.4 %), four of which are 5.5 %.
    generator = np.random.default_rng(0)
    (counts,) = intervals.resampling(50, resamples=1000, seed=0)
    covered = 0
    for _ in range(300):
        values = generator.normal(size=50)
        bounds = intervals.interval(values.mean(), intervals.weighted_mean(values, counts))
        covered += bounds["low"] <= 0 <= bounds["high"]
    assert covered / 300 == pytest.approx(0.941, abs=0.055)


def test_interval_of_undefined_values_is_none():
    nothing = {"value": None, "low": None, "high": None}
    assert intervals.interval(math.nan, np.array([1.0])) == nothing
    assert intervals.interval(2.0, np.array([np.nan])) == {"value": 2.0, "low": None, "high": None}
    some = intervals.interval(1.0, np.array([np.nan, 1.0, 1.0]))
    assert some == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_interval_of_a_mean_is_that_of_drawing_queries_one_by_one():
    values = np.random.default_rng(0).normal(size=9)
    values[[2, 7]] = np.nan
    defined = values[~np.isnan(values)]
    (counts,) = intervals.resampling(7, resamples=50, seed=3)
    means = [np.repeat(defined, row).mean() for row in counts]
    found = intervals.of_mean(values, resamples=50, seed=3)
    expected = {"value": defined.mean(), "low": np.quantile(means, 0.025)}
    assert found == pytest.approx(expected | {"high": np.quantile(means, 0.975)})
    wide = intervals.of_mean(values, resamples=50, seed=3, level=0.5)
    assert wide["low"] == pytest.approx(np.quantile(means, 0.25))


def test_interval_of_the_mean_of_one_or_no_value():
    nothing = {"value": None, "low": None, "high": None}
    assert intervals.of_mean(np.full(3, np.nan), resamples=5, seed=0) == nothing
    assert intervals.of_mean(np.zeros(0), resamples=5, seed=0) == nothing
    one = np.array([np.nan, 0.5])
    assert intervals.of_mean(one, resamples=5, seed=0) == nothing | {"value": 0.5}


def example(seed=0, *, num_queries=12):
    """Rows, and three runs: one of two seeds, one close to it, and a baseline of one seed."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 15, size=num_queries)
    query_ids = np.repeat([f"q{q}" for q in range(num_queries)], lengths)
    labels = generator.integers(4, size=len(query_ids))
    labels[np.unique(query_ids, return_index=True)[1]] = 3  # all have the highest grade, except:
    labels[query_ids == "q0"] = 0  # no gain at all
    labels[query_ids == "q1"] = np.minimum(labels[query_ids == "q1"], 2)  # gain, nothing relevant

    def run(noise, seeds):
        return [
            Predictions(
                np.where(generator.random(len(labels)) < noise, 0, labels),
                labels + noise * 6 * generator.random(len(labels)),
            )
            for _ in range(seeds)
        ]

    runs = {"uniform": run(0.5, 2), "weighted": run(0.4, 2), "random": run(0.9, 1)}
    return labels, query_ids, np.arange(len(labels)).astype(str), NAMES, GAINS, runs


def test_summary_agrees_with_drawing_queries_one_by_one():
    labels, query_ids, example_ids, names, gains, runs = example()
    summary = summarize(
        Judgments(labels, query_ids, example_ids, names, gains), runs, resamples=25, seed=3
    )
    distinct = sorted(set(query_ids))
    (counts,) = intervals.resampling(len(distinct), resamples=25, seed=3)

    def evaluate(seeds, drawn):
        """All metrics on the drawn queries (a repeated query is a query of its own)."""
        rows = [np.flatnonzero(query_ids == distinct[q]) for q in drawn]
        index = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        rows = np.concatenate(rows)
        results = []
        for one in seeds:
            ranked = ranking.per_query(
                one.scores[rows],
                labels[rows],
                gains,
                index,
                num_queries=len(drawn),
                example_ids=example_ids[rows],
            )
            result = {name: np.nanmean(value) for name, value in ranked.items()}
            confusion = np.zeros((4, 4), int)
            np.add.at(confusion, (labels[rows], one.classes[rows]), 1)
            results.append(result | classification.metrics(confusion, names))
        return results

    def mean(results):
        return {name: np.mean([result[name] for result in results]) for name in results[0]}

    draws = [np.repeat(np.arange(len(distinct)), row) for row in counts]
    resampled = {run: [mean(evaluate(seeds, d)) for d in draws] for run, seeds in runs.items()}
    for run, seeds in runs.items():
        each = evaluate(seeds, range(len(distinct)))
        for metric, value in mean(each).items():
            entry = summary["test"][run][metric]
            samples = [sample[metric] for sample in resampled[run]]
            assert entry["value"] == pytest.approx(value)
            assert entry["low"] == pytest.approx(np.quantile(samples, 0.025))
            assert entry["high"] == pytest.approx(np.quantile(samples, 0.975))
            assert summary["seeds"][run][metric] == pytest.approx(
                np.array([one[metric] for one in each])
            )


def of_each_query(judgments, one, metric):
    labels, query_ids, example_ids, _, gains = judgments
    _, index = np.unique(query_ids, return_inverse=True)
    return ranking.per_query(
        one.scores, labels, gains, index, num_queries=index.max() + 1, example_ids=example_ids
    )[metric]


@pytest.mark.parametrize("metric", ranking.METRICS)
def test_a_difference_of_rankings_is_a_claim_over_queries_and_seeds(metric):
    *rows, runs = example()
    judgments = Judgments(*rows)
    summary = summarize(judgments, runs, resamples=20)
    uniform, weighted, random = (
        np.stack([of_each_query(judgments, one, metric) for one in runs[run]])
        for run in ("uniform", "weighted", "random")
    )
    expected = claims.procedure(weighted - uniform)
    assert summary["difference"]["weighted"][metric] == pytest.approx(expected)
    # a baseline has one entry, which stands against each seed
    expected = claims.procedure(random - uniform)
    assert summary["difference"]["random"][metric] == pytest.approx(expected)
    for run in ("weighted", "random"):
        values = [summary["test"][name][metric]["value"] for name in (run, "uniform")]
        found = summary["difference"][run][metric]["value"]
        assert found == pytest.approx(values[0] - values[1])


@pytest.mark.parametrize("metric", ["accuracy", "micro_f1"])
def test_a_difference_of_classes_is_the_same_claim_by_resampling(metric):
    # With as many pairs in each query, accuracy is a mean over queries, whose covariance is known.
    # That of 4,000 resamples has a relative standard error of sqrt(2 / 4000) = 2.2 %, so an
    # interval has half of that; four of them are 4.5 %.
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=200)
    query_ids = np.repeat([f"q{q}" for q in range(20)], 10)

    def run(share):
        seeds = [np.where(generator.random(200) < share, 0, labels) for _ in range(3)]
        return [Predictions(classes, classes.astype(float)) for classes in seeds]

    runs = {"uniform": run(0.5), "weighted": run(0.4)}
    judgments = Judgments(labels, query_ids, np.arange(200), NAMES, GAINS)
    found = summarize(judgments, runs, resamples=4000)["difference"]["weighted"][metric]
    right = {
        name: np.stack([(one.classes == labels).reshape(20, 10).mean(1) for one in seeds])
        for name, seeds in runs.items()
    }
    expected = claims.procedure(right["weighted"] - right["uniform"])
    half = expected["high"] - expected["value"]
    assert found == pytest.approx(expected, abs=0.045 * half)


def test_a_difference_of_one_seed_is_over_queries_alone():
    *rows, runs = example()
    judgments = Judgments(*rows)
    one = {run: seeds[:1] for run, seeds in runs.items()}
    found = summarize(judgments, one, resamples=20)["difference"]["weighted"]["ndcg@10"]
    values = [of_each_query(judgments, one[run][0], "ndcg@10") for run in ("weighted", "uniform")]
    assert found == pytest.approx(claims.fixed(values[0] - values[1]))


def test_a_difference_of_unequal_numbers_of_seeds_has_an_interval():
    *rows, runs = example()
    more = runs | {"weighted": runs["weighted"] + runs["random"]}
    found = summarize(Judgments(*rows), more, resamples=20)["difference"]["weighted"]["mrr"]
    judgments = Judgments(*rows)
    sizes, each = claims.contrasts(
        *(
            np.stack([of_each_query(judgments, one, "mrr") for one in more[run]])
            for run in ("weighted", "uniform")
        )
    )
    each = each[:, ~np.isnan(each[0])]
    assert found == pytest.approx(
        claims.of_rows(
            each.mean(1), claims.covariance_of_means(each), sizes=sizes, queries=each.shape[1]
        )
    )


def test_summary_has_the_shape_of_the_contract():
    *rows, runs = example()
    summary = summarize(Judgments(*rows), runs, resamples=20)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary) == {"test", "difference", "seeds", "queries"}
    assert set(summary["test"]) == set(summary["seeds"]) == {"uniform", "weighted", "random"}
    assert set(summary["difference"]) == {"weighted", "random"}
    expected = {"ndcg@10", "ndcg", "mrr", "recall@10", "accuracy", "macro_f1", "micro_f1"}
    expected |= {f"{kind}_{name}" for kind in ("precision", "recall") for name in NAMES}
    for part in ("test", "difference", "seeds"):
        for metrics in summary[part].values():
            assert set(metrics) == expected
    assert len(summary["seeds"]["uniform"]["mrr"]) == 2
    assert len(summary["seeds"]["random"]["mrr"]) == 1
    assert summary["queries"] == {
        "evaluated": 11,
        "without_positive_gain": 1,
        "without_highest_grade": 1,
    }


def test_difference_of_a_run_with_itself_is_exactly_zero():
    *rows, runs = example()
    summary = summarize(Judgments(*rows), {"uniform": runs["uniform"], "weighted": runs["uniform"]})
    for entry in summary["difference"]["weighted"].values():
        assert entry == {"value": 0, "low": 0, "high": 0}


def test_summary_does_not_depend_on_the_order_of_rows():
    labels, query_ids, example_ids, names, gains, runs = example()
    shuffled = np.random.default_rng(9).permutation(len(labels))
    again = {
        run: [Predictions(one.classes[shuffled], one.scores[shuffled]) for one in seeds]
        for run, seeds in runs.items()
    }
    plain = summarize(Judgments(labels, query_ids, example_ids, names, gains), runs, resamples=30)
    other = Judgments(labels[shuffled], query_ids[shuffled], example_ids[shuffled], names, gains)
    assert plain == summarize(other, again, resamples=30)


def test_one_query_has_values_but_no_interval():
    one = [Predictions(np.array([1, 1]), np.array([0.1, 0.2]))]
    judgments = Judgments(np.array([0, 1]), ["q", "q"], ["1", "2"], ("no", "yes"), (0, 1))
    summary = summarize(judgments, {"uniform": one, "weighted": one})
    assert summary["test"]["uniform"]["accuracy"] == {"value": 0.5, "low": None, "high": None}
    assert summary["difference"]["weighted"]["mrr"] == {"value": 0.0, "low": None, "high": None}


def test_nothing_to_rank_is_null():
    one = [Predictions(np.array([0, 1]), np.array([0.1, 0.2]))]
    judgments = Judgments(np.array([0, 0]), ["q", "r"], ["1", "2"], ("no", "yes"), (0, 1))
    summary = summarize(judgments, {"uniform": one})
    nothing = {"value": None, "low": None, "high": None}
    for metric in ranking.METRICS:
        assert summary["test"]["uniform"][metric] == nothing
        assert summary["seeds"]["uniform"][metric] == [None]
    assert summary["test"]["uniform"]["accuracy"]["value"] == 0.5
    assert summary["queries"]["evaluated"] == 0


def test_no_rows_are_null():
    empty = [Predictions(np.zeros(0, int), np.zeros(0))]
    judgments = Judgments(np.zeros(0, int), [], [], ("no", "yes"), (0, 1))
    summary = summarize(judgments, {"uniform": empty})
    assert {entry["value"] for entry in summary["test"]["uniform"].values()} == {None}


def test_summary_refuses_runs_that_do_not_fit():
    *rows, runs = example()
    with pytest.raises(ValueError, match="reference 'other' is not among the runs"):
        summarize(Judgments(*rows), runs, reference="other")
    with pytest.raises(ValueError, match="run 'uniform' needs one seed or more"):
        summarize(Judgments(*rows), {"uniform": []})
    short = [Predictions(runs["random"][0].classes[1:], runs["random"][0].scores)]
    with pytest.raises(ValueError, match="run 'weighted' needs one seed or more"):
        summarize(Judgments(*rows), runs | {"weighted": short})
