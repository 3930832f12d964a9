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
