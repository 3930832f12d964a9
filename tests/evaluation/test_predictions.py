"""What a task's columns say of pairs: classes and rank scores."""

import numpy as np

from sie_jax.evaluation import from_columns
from sie_jax.evaluation.predictions import expected_gains, predicted, probabilities

GAINS = (0.0, *(0.1 * i for i in range(1, 11)), 2.0)  # twelve: "10" is before "2" as text


def test_probabilities_come_in_the_order_of_the_grades() -> None:
    wanted = np.random.default_rng(0).dirichlet(np.ones(12), size=5).astype(np.float32)
    columns = {f"probability_{grade}": wanted[:, grade] for grade in reversed(range(12))}
    columns["loss"] = np.zeros(5, np.float32)
    np.testing.assert_array_equal(probabilities(columns), wanted)
    found = from_columns(columns, GAINS)
    np.testing.assert_array_equal(found.classes, wanted.argmax(1))
    np.testing.assert_array_equal(found.scores, expected_gains(wanted, GAINS))
    assert predicted(columns).keys() == columns.keys() - {"loss"}


def test_a_relevance_ranks_and_names_no_class() -> None:
    columns = {"relevance": np.array([0.5, -1.0], np.float32), "loss": np.zeros(2)}
    found = from_columns(columns, GAINS)
    assert found.classes is None
    assert found.scores.dtype == np.float64
    assert found.scores.tolist() == [0.5, -1.0]
    assert list(predicted(columns)) == ["relevance"]


def test_expected_gains_keep_ties() -> None:
    generator, gains = np.random.default_rng(0), (0.0, 0.01, 0.1, 1.0)
    probabilities = generator.dirichlet(np.ones(4), size=1).astype(np.float32).repeat(1001, axis=0)
    scores = expected_gains(probabilities, gains)
    assert scores.dtype == np.float64
    expected = sum(float(p) * g for p, g in zip(probabilities[0], gains, strict=True))
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    assert len(np.unique(scores)) == 1
