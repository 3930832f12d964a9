"""Ranking metrics against loops over ranks, and one contract that all of them keep."""

import math

import numpy as np
import pytest

from sie_jax.errors import NumericalError
from sie_jax.evaluation import ranking

ESCI_GAINS = (0.0, 0.01, 0.1, 1.0)
# Rax computes in float32: a sum of 40 terms is good to about 40 · 2^-24.
CLOSE = 3e-6


def reference(scores, labels, gains, query_index, num_queries, example_ids):
    """The docstring's formulas, one query and one rank at a time."""
    result = {name: [math.nan] * num_queries for name in ranking.METRICS}
    for query in range(num_queries):
        rows = [n for n in range(len(scores)) if query_index[n] == query]
        rows.sort(key=lambda n: (-scores[n], int(example_ids[n])))
        ranked = [gains[labels[n]] for n in rows]
        if not any(gain > 0 for gain in ranked):
            continue
        ideal = sorted(ranked, reverse=True)
        for name, end in (("ndcg", None), ("ndcg@10", 10)):
            result[name][query] = sum(
                gain / math.log2(rank + 1) for rank, gain in enumerate(ranked[:end], 1)
            ) / sum(gain / math.log2(rank + 1) for rank, gain in enumerate(ideal[:end], 1))
        relevant = [rank for rank, n in enumerate(rows, 1) if labels[n] == len(gains) - 1]
        if relevant:
            result["mrr"][query] = 1 / relevant[0]
            result["recall@10"][query] = sum(rank <= 10 for rank in relevant) / len(relevant)
    return result


def random_queries(seed, *, num_queries=30, longest=40):
    """Rows of all queries shuffled together; few distinct scores, so many ties."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, size=num_queries)
    query_index = generator.permutation(np.repeat(np.arange(num_queries), lengths))
    labels = generator.choice(4, p=(0.5, 0.3, 0.1, 0.1), size=len(query_index))
    scores = generator.integers(6, size=len(query_index)) / 5
    ids = generator.permutation(len(query_index)).astype(str)
    return scores, labels, query_index, ids


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gains", [ESCI_GAINS, (0.0, 1 / 3, 2 / 3, 1.0), (0.0, 0.0, 1.0, 2.0)])
def test_every_metric_agrees_with_a_loop_over_ranks(seed, gains):
    scores, labels, query_index, ids = random_queries(seed)
    actual = ranking.per_query(scores, labels, gains, query_index, num_queries=31, example_ids=ids)
    expected = reference(scores, labels, gains, query_index, 31, ids)
    assert set(actual) == set(ranking.METRICS)
    for name in ranking.METRICS:
        assert actual[name].dtype == np.float64
        np.testing.assert_allclose(actual[name], expected[name], atol=CLOSE, err_msg=name)
        assert np.isnan(actual[name][30])  # the last query has no items


@pytest.mark.parametrize("metric", ranking.METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_contract_of_every_metric(metric, seed):
    scores, labels, query_index, ids = random_queries(seed, longest=20)

    def values(scores, rows=slice(None)):
        return ranking.per_query(
            scores[rows],
            labels[rows],
            ESCI_GAINS,
            query_index[rows],
            num_queries=30,
            example_ids=ids[rows],
        )[metric]

    plain = values(scores)
    defined = ~np.isnan(plain)
    assert defined.any()
    assert np.all((plain[defined] >= 0) & (plain[defined] <= 1 + CLOSE)), "range"

    shuffled = np.random.default_rng(seed + 100).permutation(len(scores))
    np.testing.assert_array_equal(values(scores, shuffled), plain, "the order of rows matters not")
    np.testing.assert_array_equal(values(np.exp(3 * scores)), plain, "only the order of scores")

    perfect = values(labels.astype(float))
    few = np.bincount(query_index, labels == 3, minlength=30) <= 10
    np.testing.assert_allclose(perfect[defined & few], 1, atol=CLOSE, err_msg="perfect order")
    assert np.all(perfect[defined] >= plain[defined] - CLOSE), "nothing beats perfect order"
    np.testing.assert_array_equal(
        np.isnan(perfect), ~defined, "scores never decide what is left out"
    )


def test_ties_break_by_ascending_example_id():
    # All scores equal, so ids decide the ranks: 9 (irrelevant), 10 (relevant).
    arguments = {
        "scores": np.zeros(2),
        "labels": np.array([1, 0]),
        "gains": (0.0, 1.0),
        "query_index": np.zeros(2, int),
        "num_queries": 1,
    }
    numeric = ranking.per_query(**arguments, example_ids=["10", "9"])
    assert numeric["mrr"][0] == pytest.approx(1 / 2)
    assert numeric["ndcg"][0] == pytest.approx(1 / math.log2(3))
    text = ranking.per_query(**arguments, example_ids=["a10", "a9"])
    assert text["mrr"][0] == 1
    integers = ranking.per_query(**arguments, example_ids=np.array([10, 9]))
    assert integers["mrr"][0] == pytest.approx(1 / 2)


def test_tie_order_is_numeric_only_when_every_id_is_an_integer():
    np.testing.assert_array_equal(ranking.tie_order(["10", "9", "-1", "10"]), [2, 1, 0, 2])
    np.testing.assert_array_equal(ranking.tie_order(["10", "9", "x"]), [0, 1, 2])
    huge = [str(2**70 + 1), str(2**70)]
    np.testing.assert_array_equal(ranking.tie_order(huge), [1, 0])


def test_queries_left_out():
    # Query 0: no gain. Query 1: gain, but no item of the highest grade. Query 2: all defined.
    values = ranking.per_query(
        np.array([2.0, 1.0, 2.0, 1.0, 1.0, 2.0]),
        np.array([0, 0, 0, 1, 2, 0]),
        (0.0, 0.5, 1.0),
        np.array([0, 0, 1, 1, 2, 2]),
        num_queries=3,
        example_ids=np.arange(6),
    )
    second = 1 / math.log2(3)
    np.testing.assert_allclose(values["ndcg"], [math.nan, second, second], atol=CLOSE)
    np.testing.assert_array_equal(values["mrr"], [math.nan, math.nan, 1 / 2])
    np.testing.assert_array_equal(values["recall@10"], [math.nan, math.nan, 1])


def test_long_queries_do_not_pad_short_ones(monkeypatch):
    scores, labels, query_index, ids = random_queries(0)
    long = np.full(300, 30)
    scores = np.concatenate([scores, np.random.default_rng(1).random(300)])
    labels = np.concatenate([labels, np.arange(300) % 4])
    query_index = np.concatenate([query_index, long])
    ids = np.arange(len(scores))
    whole = ranking.per_query(
        scores, labels, ESCI_GAINS, query_index, num_queries=31, example_ids=ids
    )
    monkeypatch.setattr(ranking, "_BLOCK", 64)
    for queries, length in ranking._blocks(np.bincount(query_index)):
        assert len(queries) * length <= 64 or len(queries) == 1
    blocks = ranking.per_query(
        scores, labels, ESCI_GAINS, query_index, num_queries=31, example_ids=ids
    )
    for name in ranking.METRICS:
        np.testing.assert_allclose(blocks[name], whole[name], atol=CLOSE)


def test_a_score_that_is_nan_is_named():
    with pytest.raises(NumericalError, match="score of example b is NaN"):
        ranking.per_query(
            np.array([0.0, np.nan]),
            np.array([0, 1]),
            (0.0, 1.0),
            np.zeros(2, int),
            num_queries=1,
            example_ids=["a", "b"],
        )
