import numpy as np
import pytest
from scipy import stats

from sie_jax.evaluation import agreement


def test_disagreement_is_the_standard_deviation_of_what_was_given() -> None:
    ratings = np.array([[3, 3, 3], [2, 3, 3], [0, 3, -1], [1, -1, -1], [-1, -1, -1]])
    expected = [0.0, np.std([2, 3, 3]), 1.5, np.nan, np.nan]
    np.testing.assert_allclose(agreement.disagreement(ratings), expected, rtol=1e-12)


def test_spearman_equals_scipy_with_ties() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 5, 200), generator.normal(size=200)
    right += left
    assert agreement.spearman(left, right) == pytest.approx(
        stats.spearmanr(left, right).statistic, abs=1e-12
    )
    assert np.isnan(agreement.spearman(np.zeros(5), np.arange(5)))
    assert np.isnan(agreement.spearman(np.zeros(0), np.zeros(0)))


def test_correlations_leave_out_what_is_not_known_and_bracket_the_value() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=300)
    values[::10] = np.nan
    noise = generator.normal(size=300)
    hardness = {"same": values, "opposite": -values, "noisy": np.nan_to_num(values) + noise}
    queries = [f"q{i // 6}" for i in range(300)]
    result = agreement.correlations(hardness, values, queries, resamples=200, seed=0)
    assert result["same"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert result["opposite"] == pytest.approx({"value": -1.0, "low": -1.0, "high": -1.0})
    known = ~np.isnan(values)
    assert result["noisy"]["value"] == pytest.approx(
        stats.spearmanr(hardness["noisy"][known], values[known]).statistic
    )
    assert result["noisy"]["low"] < result["noisy"]["value"] < result["noisy"]["high"]


def test_one_query_has_no_interval() -> None:
    result = agreement.correlations(
        {"a": np.arange(4.0)}, np.arange(4.0), ["q"] * 4, resamples=100, seed=0
    )
    assert result["a"] == {"value": pytest.approx(1.0), "low": None, "high": None}
