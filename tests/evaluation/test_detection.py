"""AUROC against its definition over all pairs of a positive and a negative."""

import math

import numpy as np
import pytest

from sie_jax.evaluation import detection


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_the_share_of_pairs_in_order(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(8, size=60) / 7  # few values, so many ties
    positive = generator.random(60) < 0.3
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    assert detection.auroc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))
    assert detection.auroc(-scores, positive) == pytest.approx(1 - sum(pairs) / len(pairs))


def test_auroc_of_one_class_is_undefined():
    assert math.isnan(detection.auroc(np.arange(3.0), np.ones(3, bool)))
    assert math.isnan(detection.auroc(np.arange(3.0), np.zeros(3, bool)))


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_over_thresholds(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(8, size=60) / 7
    positive = generator.random(60) < 0.3
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        now = positive[taken].sum() / positive.sum()
        area += (now - recall) * positive[taken].mean()
        recall = now
    assert detection.average_precision(scores, positive) == pytest.approx(area)
    assert math.isnan(detection.average_precision(scores, np.zeros(60, bool)))


@pytest.mark.parametrize("count", [1, 7, 30, 60])
def test_precision_is_the_mean_over_orders_of_ties(count):
    generator = np.random.default_rng(count)
    scores = generator.integers(5, size=60)
    positive = generator.random(60) < 0.3
    orders = [generator.permutation(60) for _ in range(4000)]
    found = [
        positive[order[np.argsort(-scores[order], kind="stable")]][:count].mean()
        for order in orders
    ]
    error = np.std(found) / math.sqrt(len(found))
    # four standard errors, and for the counts at which nothing is left to chance, rounding
    assert detection.precision_at(scores, positive, count) == pytest.approx(
        np.mean(found), abs=4 * error + 1e-9
    )


def test_wrong_labels_are_counted_where_the_truth_is_known():
    labels, truth = np.array([0, 1, 1, 2, 2]), np.array([0, 0, -1, 2, 1])
    assert detection.wrong_labels(labels, truth, classes=4) == {
        "known": 4,
        "wrong": 2,
        "by_label": [
            {"known": 1, "wrong": 0},
            {"known": 1, "wrong": 1},
            {"known": 2, "wrong": 1},
            {"known": 0, "wrong": 0},
        ],
    }
    assert detection.wrong_labels(labels, np.full(5, -1), classes=4) is None
