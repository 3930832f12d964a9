"""Scores against cleanlab, and the number of wrong labels where it is known."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.rank import get_label_quality_scores

from sie_jax.evaluation import label_errors


def shop(noise: float, *, classes: int = 3, queries: int = 200, each: int = 20, sure: float = 8.0):
    """Calibrated opinions of labels, of which a share was replaced by any other, and the truth."""
    rng = np.random.default_rng(0)
    truth = rng.integers(classes, size=queries * each)
    p = rng.dirichlet(np.full(classes, 0.3), size=len(truth)) + sure * np.eye(classes)[truth]
    p /= p.sum(1, keepdims=True)
    p = (1 - noise) * p + noise * (1 - p) / (classes - 1)  # as a model says that learned the labels
    flipped = rng.random(len(truth)) < noise
    labels = np.where(flipped, (truth + rng.integers(1, classes, len(truth))) % classes, truth)
    return p, labels, np.repeat(np.arange(queries), each), truth


@pytest.mark.parametrize("score", label_errors.SCORES)
def test_doubts_are_one_less_than_cleanlabs_quality(score: str) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(4, 0.5), size=500)
    labels = rng.integers(4, size=500)
    quality = get_label_quality_scores(labels, p, method=score)
    # cleanlab raises probabilities to 1e-6 at least
    np.testing.assert_allclose(label_errors.doubts(score, p, labels), 1 - quality, atol=3e-5)


def test_an_unknown_score() -> None:
    with pytest.raises(ValueError, match="there is no score 'loss': give one of self_confidence"):
        label_errors.doubts("loss", np.eye(2), np.array([0, 1]))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_interval_has_the_true_number(noise: float) -> None:
    p, labels, query, truth = shop(noise)
    found = label_errors.estimate(p, labels, query, resamples=200)
    wrong = (labels != truth).sum()
    assert found.wrong["low"] <= wrong <= found.wrong["high"]
    assert found.wrong["value"] == pytest.approx(wrong, abs=0.02 * len(labels))
    assert found.matrix.sum() == pytest.approx(len(labels))
    # row i, column j: labelled i, should be j
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (labels, truth), 1)
    np.testing.assert_allclose(found.matrix, confusion, atol=0.01 * len(labels))
    assert ((found.probability > 0.5) == (labels != truth)).mean() > 0.95
    assert found.sure > label_errors.SURE
    assert found.above_majority["low"] > 0


def test_the_lower_end_is_twice_as_far_as_the_bootstrap_says() -> None:
    anchors = {"value": 100.0, "low": 90.0, "high": 115.0}
    joint = {"value": 130.0, "low": 120.0, "high": 140.0}
    assert label_errors.ends(anchors, joint) == (80.0, 140.0)
    assert label_errors.ends(anchors, joint | {"low": 70.0, "high": 110.0}) == (70.0, 115.0)
    assert label_errors.ends(anchors | {"low": 40.0}, joint) == (0.0, 140.0)
    unknown = dict.fromkeys(anchors)
    assert label_errors.ends(unknown, unknown) == (0.0, 0.0)


def test_the_confident_joint_is_cleanlabs() -> None:
    p, labels, query, _ = shop(0.2, sure=0.5)
    joint = compute_confident_joint(labels, p, calibrate=True)
    found = label_errors.estimate(p, labels, query, resamples=100).confident_joint["value"]
    # cleanlab rounds to whole pairs
    assert found == pytest.approx(len(labels) - np.trace(joint), abs=3)


def test_predictions_that_say_nothing_are_noticed() -> None:
    p, labels, query, _ = shop(0.1)
    shuffled = np.random.default_rng(1).permutation(p)
    found = label_errors.estimate(shuffled, labels, query, resamples=100)
    assert found.above_majority["low"] < 0


def test_a_class_that_no_pair_has() -> None:
    p, labels, query, _ = shop(0.1)
    p = np.concatenate([p, np.zeros((len(p), 1))], 1)
    found = label_errors.estimate(p, labels, query, resamples=100)
    assert np.isfinite(found.matrix).all()
    assert found.matrix[3].sum() == 0


def test_tempered_predictions_fit_the_labels() -> None:
    """Labels are drawn from p, and the model says p to the power 3, scaled."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=20_000)
    labels = (p.cumsum(1) < rng.random((len(p), 1))).sum(1)
    too_sure = p**3 / (p**3).sum(1, keepdims=True)
    np.testing.assert_allclose(label_errors.tempered(too_sure, labels), p, atol=0.03)


def test_equal_arguments_give_equal_bits() -> None:
    p, labels, query, _ = shop(0.1, queries=20)
    one, other = (label_errors.estimate(p, labels, query, resamples=100) for _ in range(2))
    assert one.wrong == other.wrong
    np.testing.assert_array_equal(one.probability, other.probability)
