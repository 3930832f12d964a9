"""The position-based model finds what was planted and refuses what it cannot tell; its grades."""

from typing import Any

import numpy as np
import pytest

from sie_jax.data.sources import click_model
from sie_jax.data.sources.click_model import Cells
from sie_jax.errors import UserError


def cells(*rows: tuple[int, int, float, float]) -> Cells:
    """From (pair, position, impressions, clicks)."""
    pair, position, impressions, clicks = (np.array(column) for column in zip(*rows, strict=True))
    clicks = clicks.astype(float)
    return Cells(pair, position, impressions.astype(float), clicks, clicks)


def shown(
    seed: int, *, pairs: int, positions: int, times: int
) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that are shown `times` each around their own place, better ones further up.

    Gives pair, position and impressions of each cell, and γ of each pair.
    """
    rng = np.random.default_rng(seed)
    gamma = rng.uniform(0.05, 0.95, pairs)
    place = (1 - gamma) * (positions - 1) + rng.normal(0, 2, pairs)
    at = np.clip(np.rint(place[:, None] + rng.normal(0, 2, (pairs, times))), 0, positions - 1)
    keys, impressions = np.unique(
        np.arange(pairs)[:, None] * positions + at.astype(int), return_counts=True
    )
    return rng, keys // positions, keys % positions, impressions.astype(float), gamma


def simulated(seed: int, theta: np.ndarray, *, pairs: int, times: int) -> Cells:
    rng, pair, position, impressions, gamma = shown(
        seed, pairs=pairs, positions=len(theta), times=times
    )
    clicks = rng.binomial(impressions.astype(int), theta[position] * gamma[pair]).astype(float)
    return Cells(pair, position, impressions, clicks, clicks)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])
def test_expected_counts_give_back_what_they_were_made_of(eta: float) -> None:
    theta = 1 / np.arange(1, 11) ** eta
    _, pair, position, impressions, gamma = shown(0, pairs=500, positions=10, times=20)
    clicks = impressions * theta[position] * gamma[pair]
    model = click_model.fit(Cells(pair, position, impressions, clicks, clicks))
    assert model.converged
    # steps shrink by a constant factor, here at least 0.9, so 1e-8 a step leaves below 1e-7
    np.testing.assert_allclose(model.propensities, theta, atol=1e-7)
    np.testing.assert_allclose(model.attractiveness, gamma, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("times", [4, 40])
def test_planted_propensities_are_found_however_rarely_a_pair_is_shown(
    eta: float, times: int
) -> None:
    theta = 1 / np.arange(1, 9) ** eta
    found = np.array(
        [
            click_model.fit(simulated(seed, theta, pairs=40_000 // times, times=times)).propensities
            for seed in range(8)
        ]
    )
    # The mean of eight logs lies within 5 standard errors of the truth, and within a few percent.
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - theta) <= 5 * error).all()
    assert (error < 0.04 * theta).all()


def test_the_likelihood_never_falls_and_ends_at_its_top() -> None:
    counted = simulated(3, 1 / np.arange(1, 9), pairs=300, times=12)
    model = click_model.fit(counted)
    assert len(model.log_likelihoods) > 10
    # sums of some thousand terms round at 1e-12 of their size
    room = 1e-11 * abs(model.log_likelihoods[0])
    assert (np.diff(model.log_likelihoods) >= -room).all()

    def log_likelihood(theta: np.ndarray) -> float:
        each = counted.impressions * theta[counted.position]
        of_pair = np.bincount(counted.pair, each)
        clicked = counted.clicks > 0
        shares = each[clicked] / of_pair[counted.pair[clicked]]
        return float(counted.clicks[clicked] @ np.log(shares))

    top = log_likelihood(model.propensities)
    constant = counted.clicks @ np.log(counted.impressions)
    assert top == pytest.approx(model.log_likelihoods[-1] + constant)
    for position in range(8):
        for factor in (0.97, 1.03):
            moved = model.propensities.copy()
            moved[position] *= factor
            assert log_likelihood(moved) < top


def test_two_positions_in_closed_form() -> None:
    """Each pair is shown n times at both: θ_2 = Σ clicks at the second / Σ clicks at the first."""
    counted = cells((0, 0, 100, 30), (0, 1, 100, 10), (1, 0, 50, 10), (1, 1, 50, 5))
    model = click_model.fit(counted)
    theta = (10 + 5) / (30 + 10)
    np.testing.assert_allclose(model.propensities, [1, theta], rtol=1e-7)
    gamma = [40 / (100 + 100 * theta), 15 / (50 + 50 * theta)]
    np.testing.assert_allclose(model.attractiveness, gamma, rtol=1e-7)


def test_the_order_of_cells_makes_no_difference() -> None:
    counted = simulated(5, 1 / np.arange(1, 6), pairs=100, times=20)
    order = np.random.default_rng(0).permutation(len(counted.pair))
    other = Cells(*(column[order] for column in counted))
    np.testing.assert_allclose(
        click_model.fit(other).propensities, click_model.fit(counted).propensities, rtol=1e-9
    )


def test_a_position_without_a_click_has_propensity_zero() -> None:
    model = click_model.fit(cells((0, 0, 10, 5), (0, 1, 10, 2), (0, 2, 10, 0), (1, 2, 10, 0)))
    np.testing.assert_allclose(model.propensities, [1, 2 / 5, 0])
    np.testing.assert_allclose(model.attractiveness, [7 / (10 + 4), 0])


def told(call: Any) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_ranker_without_exploration_is_refused() -> None:
    counted = cells((0, 0, 100, 30), (1, 1, 100, 20), (2, 2, 100, 10))
    assert click_model.components(counted).tolist() == [0, 1, 2]
    message = told(lambda: click_model.fit(counted))
    assert "the log's 3 positions fall into 3 groups" in message
    assert "exploration" in message


def test_positions_are_compared_over_a_third() -> None:
    chain = [(0, 0, 9, 3), (0, 1, 9, 2), (1, 1, 9, 4), (1, 2, 9, 1)]
    assert click_model.components(cells(*chain)).tolist() == [0, 0, 0]
    # Without a click on the second pair at position 1, nothing compares it with position 2.
    one_way = [*chain[:2], (1, 1, 9, 0), (1, 2, 9, 1)]
    assert click_model.components(cells(*one_way)).tolist() == [0, 0, 2]


def test_a_pair_that_nobody_clicked_compares_nothing() -> None:
    counted = cells((0, 0, 9, 3), (1, 1, 9, 3), (2, 0, 9, 0), (2, 1, 9, 0))
    assert click_model.components(counted).tolist() == [0, 1]


def test_logs_without_clicks() -> None:
    assert "no clicks" in told(lambda: click_model.fit(cells((0, 0, 9, 0), (0, 1, 9, 0))))
    nothing_first = cells((0, 0, 9, 0), (0, 1, 9, 2))
    assert "the first position" in told(lambda: click_model.fit(nothing_first))


def test_relevance_is_value_over_expected_examinations() -> None:
    """Two pairs, two positions, written out."""
    counted = cells((0, 0, 10, 6), (0, 1, 30, 3), (1, 1, 20, 4))._replace(
        value=np.array([8.0, 3.0, 9.0])
    )
    theta, s = np.array([1.0, 0.5]), 2.0
    at_first, at_second = 8 / 10, (3 + 9) / (0.5 * 50)
    expected = [(10 * at_first + 30 * at_second) / 40, at_second]
    found = click_model.relevance(counted, theta, smoothing=s)
    np.testing.assert_allclose(found.impressions, [40, 20])
    np.testing.assert_allclose(found.examinations, [10 + 15, 10])
    np.testing.assert_allclose(
        found.estimate, [(11 + s * expected[0]) / (25 + s), (9 + s * expected[1]) / (10 + s)]
    )


def test_without_smoothing_it_is_the_weighted_mean_of_inverse_propensity_estimates() -> None:
    counted = simulated(7, 1 / np.arange(1, 6), pairs=50, times=30)
    theta = 1 / np.arange(1, 6)
    weight = counted.impressions * theta[counted.position]
    each = counted.clicks / weight
    mean = np.bincount(counted.pair, weight * each) / np.bincount(counted.pair, weight)
    found = click_model.relevance(counted, theta, smoothing=1e-12)
    np.testing.assert_allclose(found.estimate, mean, atol=1e-9)


def test_propensities_of_one_correct_nothing() -> None:
    counted = simulated(7, 1 / np.arange(1, 6), pairs=50, times=30)
    found = click_model.relevance(counted, np.ones(5), smoothing=1e-12)
    rate = np.bincount(counted.pair, counted.clicks) / np.bincount(
        counted.pair, counted.impressions
    )
    np.testing.assert_allclose(found.estimate, rate, atol=1e-9)


def test_a_position_that_nobody_looks_at_gets_the_average_of_all() -> None:
    counted = cells((0, 0, 10, 5), (1, 1, 10, 0))
    found = click_model.relevance(counted, np.array([1.0, 0.0]), smoothing=3.0)
    np.testing.assert_allclose(found.estimate, [0.5, 0.5])


def test_relevance_is_unbiased_where_click_rates_are_not() -> None:
    """Two equally good pairs; one is shown at the top and one at the bottom, many times."""
    theta, gamma, logs = np.array([1.0, 0.2]), 0.4, 2000
    rng = np.random.default_rng(0)
    pair, position = np.arange(2 * logs), np.tile([0, 1], logs)
    clicks = rng.binomial(20, gamma * theta[position]).astype(float)
    counted = Cells(pair, position, np.full(2 * logs, 20.0), clicks, clicks)
    found = click_model.relevance(counted, theta, smoothing=1e-9).estimate
    for at in (0, 1):
        p = gamma * theta[at]
        deviation = np.sqrt(20 * p * (1 - p)) / (20 * theta[at])
        assert abs(found[at::2].mean() - gamma) < 5 * deviation / np.sqrt(logs)


def test_grades_are_equal_parts() -> None:
    estimate = np.random.default_rng(0).permutation(40) / 40
    assert click_model.grade(estimate, grades=4).tolist() == (estimate * 4).astype(int).tolist()


def test_equal_estimates_get_equal_grades() -> None:
    estimate = np.array([0.1] * 6 + [0.5, 0.9])
    found = click_model.grade(estimate, grades=4)
    assert len(set(found[:6])) == 1
    assert found[0] < found[6] <= found[7]
