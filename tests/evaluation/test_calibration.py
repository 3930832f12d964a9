import numpy as np
import pytest

from sie_jax.evaluation import calibration


def test_bins_hold_equally_many_pairs_by_ascending_prediction():
    predicted, observed = np.array([0.4, 0.1, 0.3, 0.2]), np.array([1.0, 0.0, 1.0, 0.5])
    assert calibration.bins(predicted, observed, most=2) == [
        {"predicted": pytest.approx(0.15), "observed": 0.25, "pairs": 2},
        {"predicted": pytest.approx(0.35), "observed": 1.0, "pairs": 2},
    ]
    sizes = [one["pairs"] for one in calibration.bins(np.arange(23.0), np.arange(23.0))]
    assert (len(sizes), sum(sizes), max(sizes) - min(sizes)) == (10, 23, 1)


def test_a_model_that_is_calibrated_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=200_000)
    for one in calibration.bins(chance, rng.uniform(size=len(chance)) < chance):
        assert one["observed"] == pytest.approx(one["predicted"], abs=0.015)  # five deviations


def test_equal_predictions_give_the_same_whatever_their_order():
    predicted, observed = np.repeat([0.2, 0.8], [5, 3]), np.array([1, 0, 0, 1, 0, 1, 1, 0])
    wanted = calibration.bins(predicted, observed, most=3)
    assert [one["observed"] for one in wanted] == pytest.approx([0.4, (2 * 0.4 + 2 / 3) / 3, 2 / 3])
    order = np.random.default_rng(1).permutation(8)
    assert calibration.bins(predicted[order], observed[order], most=3) == wanted


def test_fewer_pairs_than_bins():
    assert [one["pairs"] for one in calibration.bins(np.ones(2), np.ones(2))] == [1, 1]
    assert calibration.bins(np.ones(0), np.ones(0)) == []


def test_the_expected_error_is_the_gap_of_each_bin():
    confidence = np.array([0.95, 0.99, 0.2, 0.21])
    right = np.array([1.0, 0.0, 0.0, 1.0])
    gaps = 2 / 4 * abs(0.5 - 0.97) + 1 / 4 * abs(0 - 0.2) + 1 / 4 * abs(1 - 0.21)
    assert calibration.expected_error(confidence, right, width=15) == pytest.approx(gaps)
    assert np.isnan(calibration.expected_error(np.empty(0), np.empty(0)))
